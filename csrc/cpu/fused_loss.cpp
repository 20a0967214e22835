// One pass over contiguous memory, a few thousand elements at a time so that converted copies of
// half-precision inputs stay in the first-level cache. Plain loops: the work is bound by memory.
#include "naign/fused_loss.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "cpu_features.h"

namespace naign::cpu {
namespace {

constexpr int64_t piece = 1 << 16;
constexpr int64_t strip = 1 << 11;
constexpr int64_t lanes = 16;

struct Work {
  const FusedLoss& loss;
  float slope[3];  // weight / elements, doubled for the square
};

float widen_half(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t finite = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p112f);
  return std::bit_cast<float>((magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite) | sign);
}

// Round to nearest even by adding in float32, where the last kept bit is the last bit there is.
uint16_t narrow_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);
  if (magnitude >= 0x47800000u) return static_cast<uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

uint16_t narrow_bfloat(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

const float* widen(const LossTensor& tensor, int64_t first, int64_t count, float* scratch) {
  if (tensor.dtype == Dtype::float32) return static_cast<const float*>(tensor.values) + first;
  const auto* values = static_cast<const uint16_t*>(tensor.values) + first;
  if (tensor.dtype == Dtype::float16) {
    for (int64_t i = 0; i < count; ++i) scratch[i] = widen_half(values[i]);
  } else {
    for (int64_t i = 0; i < count; ++i)
      scratch[i] = std::bit_cast<float>(uint32_t{values[i]} << 16);
  }
  return scratch;
}

void store(const LossTensor& tensor, int64_t first, int64_t count, const float* values) {
  if (tensor.dtype == Dtype::float32) {
    std::copy_n(values, count, static_cast<float*>(tensor.gradient) + first);
    return;
  }
  auto* out = static_cast<uint16_t*>(tensor.gradient) + first;
  if (tensor.dtype == Dtype::float16) {
    for (int64_t i = 0; i < count; ++i) out[i] = narrow_half(values[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = narrow_bfloat(values[i]);
  }
}

// gradient = slope * d|a - b|^p / da, and the sum of |a - b|^p added to the lanes.
template <bool absolute>
void term(const float* a, const float* b, int64_t count, float slope, float* gradient,
          double (&sums)[lanes]) {
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t width = std::min(lanes, count - i);
    for (int64_t l = 0; l < width; ++l) {
      const float difference = a[i + l] - b[i + l];
      const double wide = difference;
      if constexpr (absolute) {
        const float sign = static_cast<float>(difference > 0) - static_cast<float>(difference < 0);
        gradient[i + l] = std::isnan(difference) ? difference : slope * sign;
        sums[l] += std::fabs(wide);
      } else {
        gradient[i + l] = slope * difference;
        sums[l] += wide * wide;
      }
    }
  }
}

double total(const double (&sums)[lanes]) {
  double sum = 0;
  for (const double value : sums) sum += value;
  return sum;
}

template <bool absolute>
void run_piece(const Work& work, int64_t begin, int64_t end, double* terms) {
  const FusedLoss& loss = work.loss;
  alignas(64) float x_copy[strip], r_copy[strip], m_copy[strip], q_copy[strip];
  alignas(64) float g_r[strip], g_m[strip], g_q[strip];
  double sums[3][lanes] = {};
  for (int64_t first = begin; first < end; first += strip) {
    const int64_t count = std::min(strip, end - first);
    const float* x = widen(loss.data, first, count, x_copy);
    const float* r = widen(loss.reconstruction, first, count, r_copy);
    term<absolute>(r, x, count, work.slope[0], g_r, sums[0]);
    store(loss.reconstruction, first, count, g_r);
    if (loss.matched.values == nullptr) continue;
    const float* m = widen(loss.matched, first, count, m_copy);
    term<absolute>(m, x, count, work.slope[1], g_m, sums[1]);
    if (loss.projected.values != nullptr) {
      const float* q = widen(loss.projected, first, count, q_copy);
      term<absolute>(q, m, count, work.slope[2], g_q, sums[2]);
      store(loss.projected, first, count, g_q);
      for (int64_t i = 0; i < count; ++i) g_m[i] -= g_q[i];
    }
    store(loss.matched, first, count, g_m);
  }
  for (int t = 0; t < 3; ++t) terms[t] = total(sums[t]);
}

}  // namespace

void fused_loss(const FusedLoss& loss, double (&terms)[3], const Parallel& parallel) {
  Work work{loss, {}};
  const double count = static_cast<double>(std::max<int64_t>(1, loss.elements));
  for (int t = 0; t < 3; ++t) {
    work.slope[t] = static_cast<float>(loss.weights[t] * (loss.absolute ? 1 : 2) / count);
  }
  const int64_t pieces = (loss.elements + piece - 1) / piece;
  std::vector<double> partial(pieces * 3);
  parallel.run(pieces, [&](int64_t index) {
    const int64_t begin = index * piece;
    const int64_t end = std::min(begin + piece, loss.elements);
    const auto run = loss.absolute ? run_piece<true> : run_piece<false>;
    run(work, begin, end, partial.data() + index * 3);
  });
  std::fill_n(terms, 3, 0.0);
  for (int64_t i = 0; i < pieces * 3; ++i) terms[i % 3] += partial[i];
  for (double& value : terms) value /= count;
}

}  // namespace naign::cpu
