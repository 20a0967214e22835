// The loops of the fused loss, one table per instruction set; all tables give the same bits.
#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "fused_loss/fused_loss.h"

namespace naign::cpu {

// Writes the gradients of elements [begin, end), slope_t * d|.|^p, and each term's sum of |.|^p.
using LossLoop = void (*)(const FusedLoss& loss, const float (&slopes)[3], int64_t begin,
                          int64_t end, double* sums);

// plain: all tensors are float32. streamed: so they are, and gradients, which must lie at multiples
// of 64 bytes, go past the caches to memory. mixed: some tensor is of half precision.
enum LossMemory { plain, streamed, mixed };

// [LossMemory][|.| instead of its square][number of terms - 1]
using LossLoops = LossLoop[3][2][3];

template <Isa>
const LossLoops& loss_loops();
template <>
const LossLoops& loss_loops<Isa::portable>();
template <>
const LossLoops& loss_loops<Isa::avx2>();
template <>
const LossLoops& loss_loops<Isa::avx512>();

}  // namespace naign::cpu
