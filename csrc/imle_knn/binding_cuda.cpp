// The search as torch operators on CUDA devices.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "imle_knn/cuda/search.h"

#include <cstddef>
#include <optional>
#include <tuple>
#include <vector>

#include "common/cuda_stream.h"
#include "imle_knn/binding.h"

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
std::tuple<Tensor, Tensor> imle_knn_cuda_by(const Tensor& data, const Tensor& pool, int64_t k,
                                            std::optional<double> reject_below, int64_t method,
                                            int64_t capacity) {
  STD_TORCH_CHECK(method >= 0 && method <= static_cast<int64_t>(cuda::Method::exact) &&
                      capacity >= 0 && capacity <= 1024,
                  "method, capacity: expected 0 to 4 and 0 to 1024");
  STD_TORCH_CHECK(static_cast<cuda::Method>(method) != cuda::Method::columns ||
                      data.size(data.dim() - 1) <= cuda::largest_columns_by_thread,
                  "method: expected at most ", cuda::largest_columns_by_thread, " columns");
  check_search(data, pool, k);
  const OnDevice here(data);
  const Batches x = batches_of(data, "data");
  const Batches y = batches_of(pool, "pool");
  STD_TORCH_CHECK(k <= y.first.rows, "k: expected at most the pool's ", y.first.rows, " rows, got ",
                  k);
  std::vector<int64_t> shape{x.first.rows, k};
  if (data.dim() == 3) shape.insert(shape.begin(), x.count);
  Tensor distances = empty_like_device(data, shape, ScalarType::Float);
  Tensor indices = empty_like_device(data, shape, ScalarType::Long);
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

std::tuple<Tensor, Tensor> imle_knn_cuda(const Tensor& data, const Tensor& pool, int64_t k,
                                         std::optional<double> reject_below) {
  return imle_knn_cuda_by(data, pool, k, reject_below, 0, 0);
}

// Data packed for imle_knn_cuda_update.
Tensor imle_knn_cuda_pack(const Tensor& data, const Tensor& sample) {
  check_search(data, sample, 1);
  const OnDevice here(data);
  const Matrix x = matrix_of(data, "data");
  Tensor packed = workspace(data, static_cast<int64_t>(cuda::packed_bytes(x.rows, x.columns)));
  check(cuda::pack_data(x, matrix_of(sample, "sample"), packed.mutable_data_ptr(), here.stream));
  return packed;
}

void imle_knn_cuda_update(const Tensor& data, const Tensor& packed, const Tensor& pool,
                          int64_t offset, int64_t rows_seen, std::optional<double> reject_below,
                          Tensor distances, Tensor indices) {
  check_search(data, pool, distances.size(1));
  const OnDevice here(data);
  const Matrix x = matrix_of(data, "data");
  STD_TORCH_CHECK(packed.numel() == static_cast<int64_t>(cuda::packed_bytes(x.rows, x.columns)),
                  "packed: made for other data");
  const Neighbours result = running_neighbours(x, distances, indices);
  const PoolRange range{matrix_of(pool, "pool"), offset, rejection(reject_below)};
  Tensor memory =
      workspace(data, static_cast<int64_t>(cuda::update_bytes(x, range, result.k, rows_seen)));
  check(cuda::update(x, packed.const_data_ptr(), range, result, rows_seen,
                     memory.mutable_data_ptr(), here.stream));
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "imle_knn_cuda_by(Tensor data, Tensor pool, int k, float? reject_below, int method, "
      "int capacity) -> (Tensor, Tensor)");
  m.def("imle_knn_cuda_pack(Tensor data, Tensor sample) -> Tensor");
  m.def(
      "imle_knn_cuda_update(Tensor data, Tensor packed, Tensor pool, int offset, int rows_seen, "
      "float? reject_below, Tensor(a!) distances, Tensor(b!) indices) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) {
  m.impl("imle_knn", TORCH_BOX(&naign::glue::imle_knn_cuda));
  m.impl("imle_knn_no_grad", TORCH_BOX(&naign::glue::imle_knn_cuda));
  m.impl("imle_knn_cuda_by", TORCH_BOX(&naign::glue::imle_knn_cuda_by));
  m.impl("imle_knn_cuda_pack", TORCH_BOX(&naign::glue::imle_knn_cuda_pack));
  m.impl("imle_knn_cuda_update", TORCH_BOX(&naign::glue::imle_knn_cuda_update));
}
