// The search as torch operators.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "imle_knn/binding.h"

#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "imle_knn/cpu/filter_bounds.h"
#include "imle_knn/cpu/streaming.h"

namespace naign::glue {
namespace {

std::tuple<Tensor, Tensor> imle_knn(const Tensor& data, const Tensor& pool, int64_t k,
                                    std::optional<double> reject_below) {
  check_pair(data, pool, k);
  const cpu::Search problem{batches_of(data, "data"), batches_of(pool, "pool"), k,
                            rejection(reject_below)};
  const int64_t pool_rows = problem.pool.first.rows;
  STD_TORCH_CHECK(k <= pool_rows, "k: expected at most the pool's ", pool_rows, " rows, got ", k);
  auto [distances, indices] = empty_neighbours(data, problem.data, k, ScalarType::Float);
  cpu::search(problem, static_cast<float*>(distances.mutable_data_ptr()),
              static_cast<int64_t*>(indices.mutable_data_ptr()), torch_threads());
  return {distances, indices};
}

struct CpuState : Held {
  Matrix matrix;
  int32_t device;
  cpu::StreamingSearch search;

  CpuState(const Tensor& data, int64_t k, double reject_below)
      : matrix(matrix_of(data, "data")),
        device(data.get_device_index()),
        search(matrix, k, reject_below) {}
};

cpu::StreamingSearch& search_of(const Tensor& state, const Tensor& data) {
  return state_of<CpuState>(state, data).search;
}

Tensor imle_knn_prepare(const Tensor& data, int64_t k, std::optional<double> reject_below) {
  check_pair(data, data, k);
  return handle_of(std::make_unique<CpuState>(data, k, rejection(reject_below)));
}

void imle_knn_update(Tensor state, const Tensor& data, const Tensor& pool, int64_t offset) {
  cpu::StreamingSearch& search = search_of(state, data);
  check_pair(data, pool, 1);
  search.update(matrix_of(pool, "pool"), offset, torch_threads());
}

std::tuple<Tensor, Tensor> imle_knn_result(const Tensor& state, const Tensor& data) {
  cpu::StreamingSearch& search = search_of(state, data);
  auto [distances, indices] =
      empty_neighbours(data, batches_of(data, "data"), search.k(), ScalarType::Float);
  search.result(static_cast<float*>(distances.mutable_data_ptr()),
                static_cast<int64_t*>(indices.mutable_data_ptr()));
  return {distances, indices};
}

void imle_knn_reset(Tensor state, const Tensor& data) { search_of(state, data).reset(); }

std::tuple<Tensor, Tensor> imle_knn_running(const Tensor& state, const Tensor& data) {
  cpu::StreamingSearch& search = search_of(state, data);
  auto [distances, indices] =
      empty_neighbours(data, batches_of(data, "data"), search.k(), ScalarType::Double);
  search.get_running(static_cast<double*>(distances.mutable_data_ptr()),
                     static_cast<int64_t*>(indices.mutable_data_ptr()));
  return {distances, indices};
}

void imle_knn_set_running(Tensor state, const Tensor& data, const Tensor& distances,
                          const Tensor& indices, int64_t) {
  cpu::StreamingSearch& search = search_of(state, data);
  check_running(data, search.k(), distances, indices);
  search.set_running(static_cast<const double*>(distances.const_data_ptr()),
                     static_cast<const int64_t*>(indices.const_data_ptr()));
}

// What the filter of this number knows of every pair.
std::tuple<Tensor, Tensor> test_filter_bounds(const Tensor& data, const Tensor& pool,
                                              int64_t number) {
  check_pair(data, pool, 1);
  STD_TORCH_CHECK(number >= 0 && number < cpu::filter_count, "filter: expected 0, 1 or 2, got ",
                  number);
  const auto filter = static_cast<cpu::Filter>(number);
  STD_TORCH_CHECK(cpu::has_filter(filter), "filter: this instruction set has no kernel for it");
  const Matrix x = matrix_of(data, "data");
  const Matrix y = matrix_of(pool, "pool");
  const std::vector<int64_t> shape{x.rows, y.rows};
  Tensor lower = empty_like_device(data, shape, ScalarType::Double);
  Tensor upper = empty_like_device(data, shape, ScalarType::Double);
  cpu::filter_bounds(cpu::pack_data(x, y, filter, torch_threads()), y,
                     static_cast<double*>(lower.mutable_data_ptr()),
                     static_cast<double*>(upper.mutable_data_ptr()));
  return {lower, upper};
}

bool test_projects(const Tensor& state, const Tensor& data) {
  return search_of(state, data).projects();
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def("imle_knn(Tensor data, Tensor pool, int k, float? reject_below) -> (Tensor, Tensor)");
  // A streaming search. The state is a handle: it is neither read nor copied by anybody else, and
  // dies with its last reference. `rows` counts the pool rows that the running neighbours are of.
  m.def("imle_knn_prepare(Tensor data, int k, float? reject_below) -> Tensor");
  m.def("imle_knn_update(Tensor(a!) state, Tensor data, Tensor pool, int offset) -> ()");
  m.def("imle_knn_result(Tensor state, Tensor data) -> (Tensor, Tensor)");
  m.def("imle_knn_reset(Tensor(a!) state, Tensor data) -> ()");
  m.def("imle_knn_running(Tensor state, Tensor data) -> (Tensor, Tensor)");
  m.def(
      "imle_knn_set_running(Tensor(a!) state, Tensor data, Tensor distances, Tensor indices, "
      "int rows) -> ()");
  m.def("_test_imle_knn_filter_bounds(Tensor data, Tensor pool, int filter) -> (Tensor, Tensor)");
  m.def("_test_imle_knn_projects(Tensor state, Tensor data) -> bool");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("imle_knn", TORCH_BOX(&naign::glue::imle_knn));
  m.impl("imle_knn_prepare", TORCH_BOX(&naign::glue::imle_knn_prepare));
  m.impl("imle_knn_update", TORCH_BOX(&naign::glue::imle_knn_update));
  m.impl("imle_knn_result", TORCH_BOX(&naign::glue::imle_knn_result));
  m.impl("imle_knn_reset", TORCH_BOX(&naign::glue::imle_knn_reset));
  m.impl("imle_knn_running", TORCH_BOX(&naign::glue::imle_knn_running));
  m.impl("imle_knn_set_running", TORCH_BOX(&naign::glue::imle_knn_set_running));
  m.impl("_test_imle_knn_filter_bounds", TORCH_BOX(&naign::glue::test_filter_bounds));
  m.impl("_test_imle_knn_projects", TORCH_BOX(&naign::glue::test_projects));
}
