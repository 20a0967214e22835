// A weighted sum of distances between tensors in one pass over memory, gradients included:
//
//   term t = mean |prediction_t - target_t|^p,  total = sum_t weight_t term_t,  p = 2 or 1,
//
// each mean over the elements of its own tensors, and the gradient of the total with respect to any
// of the tensors; a tensor may occur in several terms, as prediction and as target. Differences and
// gradients are float32, no operation is fused: a gradient is the sum over its tensor's terms, in
// their order, of +-slope_t * difference (or its sign), times the scale, rounded once to the
// tensor's dtype. Sums of a term are float64 and their order is fixed: the elements are cut into
// pieces of loss_piece, within a piece each element is added to the lane of its index modulo
// loss_lanes, in ascending order; then the lanes of a piece are added in order, then the pieces. So
// the result is the same to the last bit (NaNs' payloads and zeros' signs aside) on the CPU with
// any number of threads and any instruction set, and on CUDA.
#pragma once

#include <cstdint>
#include <vector>

#include "common/matrix.h"
#include "common/parallel.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace naign {

constexpr int64_t loss_piece = 1 << 16;
constexpr int64_t loss_lanes = 16;

struct LossTensor {
  const void* values;  // contiguous
  void* gradient;      // contiguous, of the same dtype; nullptr where it is not wanted
  int64_t elements;
  Dtype dtype;
};

// Indices of two different tensors with as many elements.
struct LossTerm {
  int64_t prediction;
  int64_t target;
  double weight;
};

inline bool touches(const LossTerm& term, int64_t tensor) {
  return term.prediction == tensor || term.target == tensor;
}

struct FusedLoss {
  std::vector<LossTensor> tensors;
  std::vector<LossTerm> terms;
  bool absolute;       // |.| instead of its square
  const float* scale;  // a factor of every gradient, where the tensors are; nullptr: 1

  int64_t elements(int64_t term) const { return tensors[terms[term].prediction].elements; }

  // weight / elements, doubled for the square: a derivative is this times the difference or its
  // sign.
  float slope(int64_t term) const {
    return static_cast<float>(terms[term].weight * (absolute ? 1 : 2) /
                              static_cast<double>(elements(term)));
  }
};

constexpr int64_t loss_pieces(int64_t elements) { return (elements + loss_piece - 1) / loss_piece; }

namespace cpu {

// The unweighted terms.
std::vector<double> fused_loss(const FusedLoss& loss, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

int64_t fused_loss_workspace_bytes(const FusedLoss& loss);

// Enqueues the kernels and returns a cudaError_t. All pointers are to the current device's memory:
// `total` receives the weighted sum, `terms` the unweighted terms; `workspace` lies at a multiple
// of 16 bytes.
int fused_loss(const FusedLoss& loss, float* total, float* terms, void* workspace,
               CUstream_st* stream);

// Enqueues gradient *= scale for every tensor, each rounded once to its dtype; `values` are not
// looked at. A scale of 1, which only the device knows, costs no pass over memory.
int scale_gradients(const std::vector<LossTensor>& tensors, const float* scale,
                    CUstream_st* stream);

}  // namespace cuda
}  // namespace naign
