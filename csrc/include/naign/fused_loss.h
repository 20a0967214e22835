// Reconstruction, IMLE and idempotence losses in one pass over memory, gradients included:
//
//   terms = { mean |r - x|^p, mean |m - x|^p, mean |q - m|^p },  p = 2 or 1, means over all
//   elements
//
// and the gradient of the weighted sum with respect to r, m and q. Sums are float64 over fixed
// pieces of 2^16 elements, added in order: the result depends neither on threads nor on the
// instruction set.
#pragma once

#include <cstdint>

#include "naign/matrix.h"
#include "naign/parallel.h"

namespace naign {

struct LossTensor {
  const void* values;  // contiguous; nullptr where the term is absent
  void* gradient;      // same dtype; may be nullptr only if values is
  Dtype dtype;
};

struct FusedLoss {
  LossTensor data;  // its gradient is not written: it is minus the sum of the others
  LossTensor reconstruction;
  LossTensor matched;
  LossTensor projected;
  int64_t elements;
  double weights[3];
  bool absolute;  // |.| instead of its square
};

namespace cpu {

void fused_loss(const FusedLoss& loss, double (&terms)[3], const Parallel& parallel);

}  // namespace cpu
}  // namespace naign
