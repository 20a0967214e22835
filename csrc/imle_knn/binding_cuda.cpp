// The search as torch operators on CUDA devices.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "imle_knn/cuda/search.h"

#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <tuple>

#include "common/cuda_stream.h"
#include "imle_knn/binding.h"
#include "imle_knn/cuda/running.h"

namespace naign::glue {
namespace {

void check(int status) { check_cuda(static_cast<cudaError_t>(status), "imle_knn"); }

void check_search(const Tensor& data, const Tensor& pool, int64_t k) {
  STD_TORCH_CHECK(k >= 1 && k <= cuda::largest_k, "k: expected 1 to ", cuda::largest_k, ", got ",
                  k);
  check_pair(data, pool, k);
  STD_TORCH_CHECK(data.get_device_index() == pool.get_device_index(),
                  "pool: expected data's device");
}

// As imle_knn, in a given way and with lists of a given length, for tests.
std::tuple<Tensor, Tensor> test_by(const Tensor& data, const Tensor& pool, int64_t k,
                                   std::optional<double> reject_below, int64_t method,
                                   int64_t capacity) {
  STD_TORCH_CHECK(method >= 0 && method <= static_cast<int64_t>(cuda::Method::exact) &&
                      capacity >= 0 && capacity <= cuda::largest_capacity,
                  "method, capacity: expected 0 to 4 and 0 to ", cuda::largest_capacity);
  STD_TORCH_CHECK(static_cast<cuda::Method>(method) != cuda::Method::columns ||
                      data.size(data.dim() - 1) <= cuda::largest_columns_by_thread,
                  "method: expected at most ", cuda::largest_columns_by_thread, " columns");
  check_search(data, pool, k);
  const OnDevice here(data);
  const Batches x = batches_of(data, "data");
  const Batches y = batches_of(pool, "pool");
  STD_TORCH_CHECK(k <= y.first.rows, "k: expected at most the pool's ", y.first.rows, " rows, got ",
                  k);
  auto [distances, indices] = empty_neighbours(data, x, k, ScalarType::Float);
  if (x.count * x.first.rows == 0) return {distances, indices};
  const cuda::Search search{x.first,
                            y.first,
                            x.count,
                            x.stride,
                            y.stride,
                            k,
                            rejection(reject_below),
                            static_cast<cuda::Method>(method),
                            capacity};
  Tensor memory = workspace(data, static_cast<int64_t>(cuda::search_bytes(search)));
  check(cuda::search(search, static_cast<float*>(distances.mutable_data_ptr()),
                     static_cast<int64_t*>(indices.mutable_data_ptr()), memory.mutable_data_ptr(),
                     here.stream));
  return {distances, indices};
}

std::tuple<Tensor, Tensor> imle_knn(const Tensor& data, const Tensor& pool, int64_t k,
                                    std::optional<double> reject_below) {
  return test_by(data, pool, k, reject_below, 0, 0);
}

// What a streaming search keeps, in memory of torch's allocator. Threads take turns.
struct CudaState : Held {
  Matrix matrix;
  int32_t device;
  int64_t k;
  double reject_below;
  Tensor distances;
  Tensor indices;
  std::optional<Tensor> packed;
  int64_t rows_seen = 0;  // since the last reset
  std::mutex mutex;

  CudaState(const Tensor& data, int64_t neighbours, double rejected)
      : matrix(matrix_of(data, "data")),
        device(data.get_device_index()),
        k(neighbours),
        reject_below(rejected),
        distances(empty_like_device(data, {matrix.rows, k}, ScalarType::Double)),
        indices(empty_like_device(data, {matrix.rows, k}, ScalarType::Long)) {}

  Neighbours neighbours() const {
    return {static_cast<double*>(distances.mutable_data_ptr()),
            static_cast<int64_t*>(indices.mutable_data_ptr()), matrix.rows, k};
  }

  void reset(cudaStream_t stream) {
    check(cuda::clear(neighbours(), stream));
    rows_seen = 0;
  }
};

Tensor imle_knn_prepare(const Tensor& data, int64_t k, std::optional<double> reject_below) {
  check_search(data, data, k);
  const OnDevice here(data);
  auto state = std::make_unique<CudaState>(data, k, rejection(reject_below));
  state->reset(here.stream);
  return handle_of(std::move(state));
}

// Packs the data for a pool like this one.
Tensor pack(const Tensor& data, const Matrix& x, const Matrix& sample, const OnDevice& here) {
  Tensor packed = workspace(data, static_cast<int64_t>(cuda::packed_bytes(x.rows, x.columns)));
  check(cuda::pack_data(x, sample, packed.mutable_data_ptr(), here.stream));
  return packed;
}

void imle_knn_update(Tensor handle, const Tensor& data, const Tensor& pool, int64_t offset) {
  auto& state = state_of<CudaState>(handle, data);
  const std::lock_guard guard(state.mutex);
  check_search(data, pool, state.k);
  const Matrix& x = state.matrix;
  const PoolRange range{matrix_of(pool, "pool"), offset, state.reject_below};
  if (x.rows == 0 || range.rows.rows == 0) return;
  const OnDevice here(data);
  // A new pool may lie elsewhere. Packing again costs less than waiting for the device to say so.
  if (state.rows_seen == 0 || !state.packed) state.packed = pack(data, x, range.rows, here);
  Tensor memory =
      workspace(data, static_cast<int64_t>(cuda::update_bytes(x, range, state.k, state.rows_seen)));
  check(cuda::update(x, state.packed->const_data_ptr(), range, state.neighbours(), state.rows_seen,
                     memory.mutable_data_ptr(), here.stream));
  state.rows_seen += range.rows.rows;
}

std::tuple<Tensor, Tensor> imle_knn_result(const Tensor& handle, const Tensor& data) {
  auto& state = state_of<CudaState>(handle, data);
  const std::lock_guard guard(state.mutex);
  const OnDevice here(data);
  Tensor rounded = empty_like_device(data, {state.matrix.rows, state.k}, ScalarType::Float);
  check(cuda::finish(state.matrix, state.neighbours(),
                     static_cast<float*>(rounded.mutable_data_ptr()), here.stream));
  return {rounded, torch::stable::clone(state.indices)};
}

void imle_knn_reset(Tensor handle, const Tensor& data) {
  auto& state = state_of<CudaState>(handle, data);
  const std::lock_guard guard(state.mutex);
  const OnDevice here(data);
  state.reset(here.stream);
}

std::tuple<Tensor, Tensor> imle_knn_running(const Tensor& handle, const Tensor& data) {
  auto& state = state_of<CudaState>(handle, data);
  const std::lock_guard guard(state.mutex);
  return {torch::stable::clone(state.distances), torch::stable::clone(state.indices)};
}

void imle_knn_set_running(Tensor handle, const Tensor& data, const Tensor& distances,
                          const Tensor& indices, int64_t rows) {
  auto& state = state_of<CudaState>(handle, data);
  const std::lock_guard guard(state.mutex);
  check_running(data, state.k, distances, indices);
  state.distances = torch::stable::clone(distances);
  state.indices = torch::stable::clone(indices);
  state.rows_seen = rows;
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "_test_imle_knn_by(Tensor data, Tensor pool, int k, float? reject_below, int method, "
      "int capacity) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) {
  m.impl("imle_knn", TORCH_BOX(&naign::glue::imle_knn));
  m.impl("imle_knn_prepare", TORCH_BOX(&naign::glue::imle_knn_prepare));
  m.impl("imle_knn_update", TORCH_BOX(&naign::glue::imle_knn_update));
  m.impl("imle_knn_result", TORCH_BOX(&naign::glue::imle_knn_result));
  m.impl("imle_knn_reset", TORCH_BOX(&naign::glue::imle_knn_reset));
  m.impl("imle_knn_running", TORCH_BOX(&naign::glue::imle_knn_running));
  m.impl("imle_knn_set_running", TORCH_BOX(&naign::glue::imle_knn_set_running));
  m.impl("_test_imle_knn_by", TORCH_BOX(&naign::glue::test_by));
}
