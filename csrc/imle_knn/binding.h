// What the search's operators ask of their tensors, on every device.
#pragma once

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "common/handle.h"
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

// Room for the distances and indices of a search, (N, k) or (B, N, k).
inline std::tuple<Tensor, Tensor> empty_neighbours(const Tensor& data, const Batches& x, int64_t k,
                                                   ScalarType distance_type) {
  std::vector<int64_t> shape{x.first.rows, k};
  if (data.dim() == 3) shape.insert(shape.begin(), x.count);
  return {empty_like_device(data, shape, distance_type),
          empty_like_device(data, shape, ScalarType::Long)};
}

// The state of a streaming search behind its handle. Every call names the data that the state was
// prepared for, by which the dispatcher finds the device.
template <class State>
State& state_of(const Tensor& handle, const Tensor& data) {
  Held* held = held_by(handle);
  STD_TORCH_CHECK(held != nullptr,
                  "state: expected what imle_knn_prepare returned, not another "
                  "tensor and no copy");
  auto* state = dynamic_cast<State*>(held);
  STD_TORCH_CHECK(state != nullptr && state->device == data.get_device_index(),
                  "state: prepared for data on another device");
  STD_TORCH_CHECK(state->matrix == matrix_of(data, "data"),
                  "data: expected the tensor that the state was prepared for");
  return *state;
}

// The running neighbours that a state takes over.
inline void check_running(const Tensor& data, int64_t k, const Tensor& distances,
                          const Tensor& indices) {
  const auto fits = [&](const Tensor& tensor, ScalarType type) {
    return tensor.dim() == 2 && tensor.size(0) == data.size(0) && tensor.size(1) == k &&
           tensor.is_contiguous() && tensor.scalar_type() == type &&
           tensor.device() == data.device();
  };
  STD_TORCH_CHECK(fits(distances, ScalarType::Double) && fits(indices, ScalarType::Long),
                  "distances, indices: expected contiguous float64 and int64 of shape (N, k) on "
                  "data's device");
}

}  // namespace naign::glue
