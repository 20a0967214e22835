// One pass over contiguous memory. float32 inputs are read and gradients written where they are; of
// half precision a few thousand elements at a time pass through the first-level cache.
#include "naign/fused_loss.h"

#include <algorithm>
#include <vector>

#include "cpu_features.h"
#include "fused_loss_kernels.h"

namespace naign::cpu {
namespace {

constexpr int64_t piece = 1 << 16;
constexpr int64_t strip = 1 << 11;

struct Work {
  const LossTensor* inputs[3];
  const LossTensor& data;
  const LossKernels& kernels;
  LossTerms run;
  int terms;
  float slopes[3];  // weight / elements, doubled for the square
};

const LossKernels& kernels() {
  switch (isa()) {
#if defined(__x86_64__)
    case Isa::avx512:
      return loss_kernels_avx512();
    case Isa::avx2:
      return loss_kernels_avx2();
#endif
    default:
      return loss_kernels_portable();
  }
}

Work work_of(const FusedLoss& loss) {
  const int terms = loss.matched.values == nullptr ? 1 : (loss.projected.values == nullptr ? 2 : 3);
  const LossKernels& table = kernels();
  Work work{{&loss.reconstruction, &loss.matched, &loss.projected},
            loss.data,
            table,
            table.terms[loss.absolute][terms - 1],
            terms,
            {}};
  const double count = static_cast<double>(std::max<int64_t>(1, loss.elements));
  for (int t = 0; t < 3; ++t) {
    work.slopes[t] = static_cast<float>(loss.weights[t] * (loss.absolute ? 1 : 2) / count);
  }
  return work;
}

const float* read(const Work& work, const LossTensor& tensor, int64_t first, int64_t count,
                  float* scratch) {
  if (tensor.dtype == Dtype::float32) return static_cast<const float*>(tensor.values) + first;
  work.kernels.widen(static_cast<const uint16_t*>(tensor.values) + first, tensor.dtype, count,
                     scratch);
  return scratch;
}

void run_piece(const Work& work, int64_t begin, int64_t end, double* terms) {
  alignas(64) float values[4][strip];
  alignas(64) float gradients[3][strip];
  double sums[3][loss_lanes] = {};
  for (int64_t first = begin; first < end; first += strip) {
    LossStrip part{};
    part.count = std::min(strip, end - first);
    part.data = read(work, work.data, first, part.count, values[3]);
    for (int t = 0; t < work.terms; ++t) {
      const LossTensor& input = *work.inputs[t];
      part.inputs[t] = read(work, input, first, part.count, values[t]);
      part.gradients[t] = input.dtype == Dtype::float32
                              ? static_cast<float*>(input.gradient) + first
                              : gradients[t];
    }
    work.run(part, work.slopes, sums);
    for (int t = 0; t < work.terms; ++t) {
      const LossTensor& input = *work.inputs[t];
      if (input.dtype == Dtype::float32) continue;
      work.kernels.narrow(gradients[t], input.dtype, part.count,
                          static_cast<uint16_t*>(input.gradient) + first);
    }
  }
  for (int t = 0; t < 3; ++t) {
    terms[t] = 0;
    for (const double sum : sums[t]) terms[t] += sum;
  }
}

}  // namespace

void fused_loss(const FusedLoss& loss, double (&terms)[3], const Parallel& parallel) {
  const Work work = work_of(loss);
  const int64_t pieces = (loss.elements + piece - 1) / piece;
  std::vector<double> partial(pieces * 3);
  parallel.run(pieces, [&](int64_t index) {
    const int64_t begin = index * piece;
    run_piece(work, begin, std::min(begin + piece, loss.elements), partial.data() + index * 3);
  });
  std::fill_n(terms, 3, 0.0);
  for (int64_t i = 0; i < pieces * 3; ++i) terms[i % 3] += partial[i];
  for (double& value : terms) value /= static_cast<double>(std::max<int64_t>(1, loss.elements));
}

}  // namespace naign::cpu
