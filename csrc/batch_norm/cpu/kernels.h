// The loops of batch normalisation, one table for each instruction set; all give the same bits.
#pragma once

#include <cstdint>

#include "batch_norm/batch_norm.h"
#include "common/cpu_features.h"

namespace naign::cpu {

// out = (x - centre[c]) slope[c] + offset[c] (+ gradient gradient_slope[c])
struct BatchNormMap {
  ChannelShape shape;
  const float* x;
  const float* gradient;  // or nullptr
  const float* centre;
  const float* slope;
  const float* offset;
  const float* gradient_slope;  // where gradient is given
  float* out;
};

struct BatchNormLoops {
  // The sums of channels [begin, end).
  void (*sums)(const BatchNormSums& work, int64_t begin, int64_t end);
  // The map of strips [begin, end) of `inner` elements, outer * channels of them; where inner is 1,
  // of rows of `channels` elements.
  void (*map)(const BatchNormMap& work, int64_t begin, int64_t end);
};

template <Isa>
const BatchNormLoops& batch_norm_loops();
template <>
const BatchNormLoops& batch_norm_loops<Isa::portable>();
template <>
const BatchNormLoops& batch_norm_loops<Isa::avx2>();
template <>
const BatchNormLoops& batch_norm_loops<Isa::avx512>();

}  // namespace naign::cpu
