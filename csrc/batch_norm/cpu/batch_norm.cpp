// Batch normalisation on the CPU: channels are summed and elements mapped, on any number of
// threads.
#include "batch_norm/batch_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "batch_norm/cpu/kernels.h"
#include "common/cpu_features.h"

namespace naign::cpu {
namespace {

const BatchNormLoops& loops() {
  return with_isa(isa(),
                  [](auto set) -> const BatchNormLoops& { return batch_norm_loops<set()>(); });
}

// Some microseconds of work: less would not pay for a thread.
constexpr int64_t elements_at_once = 1 << 15;

// Channels of a cache line: threads do not write to each other's.
constexpr int64_t channels_at_once = 16;

// Calls take(begin, end) for a piece of `count` items of `each` elements for every thread, fewer
// where there is little to do; a piece is a multiple of `step` items.
template <class Take>
void in_pieces(int64_t count, int64_t each, int64_t step, const Parallel& parallel,
               const Take& take) {
  if (count == 0) return;
  const int64_t fewest = (elements_at_once + each - 1) / each;
  const int64_t wanted = std::max(fewest, (count + parallel.threads - 1) / parallel.threads);
  const int64_t size = (wanted + step - 1) / step * step;
  parallel.run((count + size - 1) / size,
               [&](int64_t piece) { take(piece * size, std::min((piece + 1) * size, count)); });
}

// What the map multiplies and adds, for each channel.
struct Coefficients {
  explicit Coefficients(int64_t channels) : values(4 * channels), channels(channels) {}

  float* centre() { return values.data(); }
  float* slope() { return values.data() + channels; }
  float* offset() { return values.data() + 2 * channels; }
  float* gradient_slope() { return values.data() + 3 * channels; }

  std::vector<float> values;
  int64_t channels;
};

void map(const BatchNormMap& work, const Parallel& parallel) {
  const auto [outer, channels, inner] = work.shape;
  const int64_t strips = inner == 1 ? outer : outer * channels;
  in_pieces(strips, std::max<int64_t>(1, inner == 1 ? channels : inner), 1, parallel,
            [&](int64_t begin, int64_t end) { loops().map(work, begin, end); });
}

// The float nearest to the mean is what x is compared with; what it is too large by.
double rest_of(double mean) { return static_cast<double>(static_cast<float>(mean)) - mean; }

float followed(float running, double value, double momentum) {
  return static_cast<float>(running + momentum * (value - running));
}

}  // namespace

void batch_norm_sums(const BatchNormSums& work, const Parallel& parallel) {
  const auto [outer, channels, inner] = work.shape;
  work.sums[2 * channels] = static_cast<double>(outer * inner);
  const int64_t each = std::max<int64_t>(1, outer * inner);
  in_pieces(channels, each, inner == 1 ? channels_at_once : 1, parallel,
            [&](int64_t begin, int64_t end) { loops().sums(work, begin, end); });
}

void batch_norm_forward(const BatchNormForward& work, const Parallel& parallel) {
  const int64_t channels = work.shape.channels;
  const double count = work.sums[2 * channels];
  Coefficients of(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double shift = work.sums[c] / count;
    const double variance = std::max(work.sums[channels + c] / count - shift * shift, 0.0);
    const double mean = work.running_mean[c] + shift;
    const double scale = 1 / std::sqrt(variance + work.eps);
    const double slope = (work.weight == nullptr ? 1.0 : work.weight[c]) * scale;
    const double bias = work.bias == nullptr ? 0.0 : work.bias[c];
    work.mean[c] = mean;
    work.scale[c] = scale;
    of.centre()[c] = static_cast<float>(mean);
    of.slope()[c] = static_cast<float>(slope);
    of.offset()[c] = static_cast<float>(bias + slope * rest_of(mean));
    work.running_mean[c] = followed(work.running_mean[c], mean, work.momentum);
    const double unbiased = variance * (count / std::max(count - 1, 1.0));
    work.running_var[c] = followed(work.running_var[c], unbiased, work.momentum);
  }
  map({work.shape, work.x, nullptr, of.centre(), of.slope(), of.offset(), nullptr, work.out},
      parallel);
}

void batch_norm_backward(const BatchNormBackward& work, const Parallel& parallel) {
  const int64_t channels = work.shape.channels;
  const double count = work.sums[2 * channels];
  Coefficients of(channels);
  for (int64_t c = 0; c < channels; ++c) {
    const double mean = work.mean[c];
    const double scale = work.scale[c];
    const double rest = rest_of(mean);
    const auto with_h = [&](const double* sums) {
      return (sums[channels + c] + rest * sums[c]) * scale;
    };
    work.gradient_bias[c] = static_cast<float>(work.own_sums[c]);
    work.gradient_weight[c] = static_cast<float>(with_h(work.own_sums));
    const double slope = (work.weight == nullptr ? 1.0 : work.weight[c]) * scale;
    const double bend = -slope * scale * with_h(work.sums) / count;
    of.centre()[c] = static_cast<float>(mean);
    of.slope()[c] = static_cast<float>(bend);
    of.offset()[c] = static_cast<float>(bend * rest - slope * work.sums[c] / count);
    of.gradient_slope()[c] = static_cast<float>(slope);
  }
  map({work.shape, work.x, work.gradient, of.centre(), of.slope(), of.offset(), of.gradient_slope(),
       work.gradient_x},
      parallel);
}

}  // namespace naign::cpu
