// What the search's operators ask of their tensors, on every device.
#pragma once

#include <limits>
#include <optional>

#include "common/tensors.h"
#include "imle_knn/imle_knn.h"

namespace naign::glue {

inline double rejection(const std::optional<double>& reject_below) {
  return reject_below.value_or(-std::numeric_limits<double>::infinity());
}

inline void check_pair(const Tensor& data, const Tensor& pool, int64_t k) {
  STD_TORCH_CHECK(data.dim() == pool.dim(), "pool: expected ", data.dim(), " dimensions, got ",
                  pool.dim());
  STD_TORCH_CHECK(data.size(data.dim() - 1) == pool.size(pool.dim() - 1),
                  "pool: expected D = ", data.size(data.dim() - 1),
                  ", got D = ", pool.size(pool.dim() - 1));
  STD_TORCH_CHECK(data.dim() == 2 || data.size(0) == pool.size(0),
                  "pool: expected B = ", data.size(0), ", got B = ", pool.size(0));
  STD_TORCH_CHECK(data.size(data.dim() - 1) > 0, "data: expected D >= 1");
  STD_TORCH_CHECK(k >= 1, "k: expected at least 1, got ", k);
}

// What a streaming search has found so far.
inline Neighbours running_neighbours(const Matrix& data, const Tensor& distances,
                                     const Tensor& indices) {
  STD_TORCH_CHECK(distances.is_contiguous() && indices.is_contiguous() &&
                      distances.scalar_type() == ScalarType::Double &&
                      indices.scalar_type() == ScalarType::Long && distances.size(0) == data.rows,
                  "distances, indices: expected contiguous float64 and int64 of (N, k)");
  return {static_cast<double*>(distances.mutable_data_ptr()),
          static_cast<int64_t*>(indices.mutable_data_ptr()), data.rows, distances.size(1)};
}

}  // namespace naign::glue
