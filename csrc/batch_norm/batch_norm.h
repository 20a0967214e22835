// Batch normalisation whose statistics are those of several processes' rows, cut where something is
// added up over the processes. With n elements of a channel, those of all processes together:
//
//   sums, for each channel c, with d = x - centre[c] and v = gradient, or d where there is none:
//     sums[c] = sum of v,  sums[channels + c] = sum of v d,  sums[2 channels] = this process's n
//   forward, from the sums about the running mean:
//     mean = centre + sum of d / n,  variance = sum of d^2 / n - (sum of d / n)^2,
//     r = 1 / sqrt(variance + eps),  h = (x - mean) r,  out = h weight + bias
//   backward, from the sums about the mean, rounded to float32, with a gradient g of out:
//     gradient of x = weight r (g - sum of g / n - h (sum of g h) / n),
//     gradient of weight = sum of g h,  of bias = sum of g, over this process's rows alone
//
// Elements are mapped in float32 as (x - centre) slope + offset (+ gradient gradient_slope), where
// centre is the mean rounded to float32 and offset makes up for the rounding; no operation is
// fused. All else is float64. The order of sums is fixed: where inner is 1, by ascending row;
// otherwise an element is added to the lane of its place in its strip modulo norm_lanes, strip
// after strip, and the lanes of a channel are added in order. So the result is the same to the last
// bit with any number of threads and any instruction set.
#pragma once

#include <cstdint>

#include "common/parallel.h"

namespace naign {

constexpr int64_t norm_lanes = 16;

// x and gradient are contiguous (outer, channels, inner); inner is 1 where channels are innermost.
struct ChannelShape {
  int64_t outer;
  int64_t channels;
  int64_t inner;
};

struct BatchNormSums {
  ChannelShape shape;
  const float* x;
  const float* gradient;  // or nullptr
  const float* centre;
  double* sums;
};

struct BatchNormForward {
  ChannelShape shape;
  const float* x;
  const double* sums;   // of all processes
  const float* weight;  // or nullptr: ones
  const float* bias;    // or nullptr: zeros
  double momentum;
  double eps;
  float* running_mean;  // before: the centre of the sums; follows by the momentum's share
  float* running_var;
  float* out;
  double* mean;
  double* scale;  // r
};

struct BatchNormBackward {
  ChannelShape shape;
  const float* x;
  const float* gradient;
  const double* own_sums;  // of this process
  const double* sums;      // of all processes
  const double* mean;
  const double* scale;
  const float* weight;  // or nullptr: ones
  float* gradient_x;
  float* gradient_weight;
  float* gradient_bias;
};

namespace cpu {

void batch_norm_sums(const BatchNormSums& work, const Parallel& parallel);
void batch_norm_forward(const BatchNormForward& work, const Parallel& parallel);
void batch_norm_backward(const BatchNormBackward& work, const Parallel& parallel);

}  // namespace cpu
}  // namespace naign
