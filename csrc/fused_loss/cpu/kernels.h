// The loops of the fused loss, one table per instruction set; all tables give the same bits.
#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "fused_loss/plan.h"

namespace naign::cpu {

// A tensor of a step, from the elements on that the loop begins with.
struct LossStream {
  const void* values;
  void* gradient;  // nullptr where it is not wanted
  Dtype dtype;
  float scale;      // of the gradient
  float* partial;   // the gradient's unfinished sum; nullptr where the step has all of its terms
  bool begun;       // the sum has begun
  bool unfinished;  // the sum goes on: it is written to `partial`, unscaled, not to `gradient`
};

// A step of the plan on some elements.
struct LossWork {
  LossStream streams[loss_step_terms + 1];
  float slopes[loss_step_terms];
  int64_t elements;
};

// Writes the gradients, slope_t * d|.|^p, and adds |.|^p to the term's lanes.
using LossLoop = void (*)(const LossWork& work, double (*sums)[loss_lanes]);

// plain: all tensors are float32. streamed: so they are, and gradients, which must lie at multiples
// of 64 bytes, go past the caches to memory. mixed: some tensor is of half precision.
enum LossMemory { plain, streamed, mixed };

// [LossMemory][|.| instead of its square][number of terms - 1], and at the end the loop for a
// single term of several steps.
constexpr int loss_loop_in_steps = loss_step_terms;
using LossLoops = LossLoop[3][2][loss_step_terms + 1];

template <Isa>
const LossLoops& loss_loops();
template <>
const LossLoops& loss_loops<Isa::portable>();
template <>
const LossLoops& loss_loops<Isa::avx2>();
template <>
const LossLoops& loss_loops<Isa::avx512>();

}  // namespace naign::cpu
