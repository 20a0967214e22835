// Reconstruction, IMLE and idempotence losses in one pass over memory, gradients included:
//
//   terms = { mean |r - x|^p, mean |m - x|^p, mean |q - m|^p },  p = 2 or 1, means over all
//   elements
//
// and the gradient of the weighted sum with respect to r, m and q. Differences and gradients are
// float32, no operation is fused. Sums are float64 and their order is fixed: the elements are cut
// into pieces of loss_piece, within a piece each element is added to the lane of its index modulo
// loss_lanes, in ascending order; then the lanes of a piece are added in order, then the pieces. So
// the result is the same to the last bit (NaNs' payloads aside) on the CPU with any number of
// threads and any instruction set, and on CUDA.
#pragma once

#include <cstdint>

#include "common/matrix.h"
#include "common/parallel.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace naign {

constexpr int64_t loss_piece = 1 << 16;
constexpr int64_t loss_lanes = 16;

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

  int64_t pieces() const { return (elements + loss_piece - 1) / loss_piece; }

  // weight / elements, doubled for the square: a gradient is this times the difference or its sign.
  float slope(int term) const {
    return static_cast<float>(weights[term] * (absolute ? 1 : 2) / static_cast<double>(elements));
  }
};

namespace cpu {

void fused_loss(const FusedLoss& loss, double (&terms)[3], const Parallel& parallel);

}  // namespace cpu

namespace cuda {

constexpr int64_t fused_loss_workspace_bytes(int64_t pieces) { return pieces * 3 * 8; }

// Enqueues two kernels and returns a cudaError_t. All pointers are to the current device's memory:
// `total` receives the weighted sum, `terms` the three unweighted ones.
int fused_loss(const FusedLoss& loss, float* total, float* terms, void* workspace,
               CUstream_st* stream);

// Enqueues gradient *= scale for those that are there, each rounded once to its dtype; `values` are
// not looked at. A scale of 1, which only the device knows, costs no pass over memory.
int scale_gradients(const LossTensor (&gradients)[3], int64_t elements, const float* scale,
                    CUstream_st* stream);

}  // namespace cuda
}  // namespace naign
