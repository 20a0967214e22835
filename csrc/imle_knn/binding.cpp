// The search as torch operators.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/binding.h"

namespace naign::glue {
namespace {

// Waking another thread takes a few thousand nanoseconds.
constexpr double cost_worth_a_thread = 4e3;

Tensor empty_bytes(const Tensor& like, size_t bytes) {
  return empty_like_device(like, {static_cast<int64_t>(bytes)}, ScalarType::Byte);
}

void search_one(const cpu::Unpacked& way, const Matrix& x, const PoolRange& pool,
                const Neighbours& result, const Parallel& parallel) {
  result.clear();
  if (way.pays()) return cpu::search_unpacked(way, x, pool, result, parallel);
  const cpu::Filter filter = cpu::first_filter(x.columns);
  const auto packed = cpu::aligned_array<char>(cpu::packed_bytes(x.rows, x.columns, filter));
  cpu::pack_data(x, pool.rows, filter, packed.get(), parallel);
  cpu::search(x, packed.get(), {}, pool, result, parallel);
}

std::tuple<Tensor, Tensor> imle_knn(const Tensor& data, const Tensor& pool, int64_t k,
                                    std::optional<double> reject_below) {
  check_pair(data, pool, k);
  const Batches x = batches_of(data, "data");
  const Batches y = batches_of(pool, "pool");
  STD_TORCH_CHECK(k <= y.first.rows, "k: expected at most the pool's ", y.first.rows, " rows, got ",
                  k);
  const int64_t rows = x.first.rows;
  std::vector<int64_t> shape{rows, k};
  if (data.dim() == 3) shape.insert(shape.begin(), x.count);
  Tensor distances = empty_like_device(data, shape, ScalarType::Float);
  Tensor indices = empty_like_device(data, shape, ScalarType::Long);
  std::vector<double> exact(static_cast<size_t>(x.count) * rows * k);
  auto* rounded = static_cast<float*>(distances.mutable_data_ptr());
  auto* found = static_cast<int64_t*>(indices.mutable_data_ptr());
  const double reject = rejection(reject_below);
  const cpu::Unpacked way = cpu::choose_unpacked(x.first, {y.first, 0, reject}, k);
  const auto search_batch = [&](int64_t batch, const Parallel& parallel) {
    const int64_t at = batch * rows * k;
    const Neighbours result{exact.data() + at, found + at, rows, k};
    search_one(way, x[batch], {y[batch], 0, reject}, result, parallel);
    cpu::finish(x[batch], result, rounded + at);
  };
  if (x.count == 1) {
    search_batch(0, torch_threads());
    return {distances, indices};
  }
  const Parallel here = on_this_thread();
  const double grain = std::max(1.0, cost_worth_a_thread / std::max(1.0, way.cost));
  torch::stable::parallel_for(0, x.count, static_cast<int64_t>(grain),
                              [&](int64_t begin, int64_t end) {
                                for (int64_t batch = begin; batch < end; ++batch)
                                  search_batch(batch, here);
                              });
  return {distances, indices};
}

cpu::Filter filter_of(int64_t number) {
  STD_TORCH_CHECK(number >= 0 && number <= static_cast<int64_t>(cpu::Filter::float32),
                  "filter: expected 0, 1 or 2, got ", number);
  STD_TORCH_CHECK(cpu::has_filter(static_cast<cpu::Filter>(number)),
                  "filter: this instruction set has no kernel for it");
  return static_cast<cpu::Filter>(number);
}

int64_t imle_knn_first_filter(const Tensor& data) {
  return static_cast<int64_t>(cpu::first_filter(data.size(data.dim() - 1)));
}

Tensor imle_knn_pack(const Tensor& data, const Tensor& sample, int64_t filter) {
  check_pair(data, sample, 1);
  const Matrix x = matrix_of(data, "data");
  Tensor packed = empty_bytes(data, cpu::packed_bytes(x.rows, x.columns, filter_of(filter)));
  cpu::pack_data(x, matrix_of(sample, "sample"), filter_of(filter), packed.mutable_data_ptr(),
                 torch_threads());
  return packed;
}

bool imle_knn_packing_fits(const Tensor& packed, const Tensor& sample) {
  return cpu::packing_fits(packed.const_data_ptr(), matrix_of(sample, "sample"));
}

std::tuple<Tensor, Tensor> imle_knn_filter_bounds(const Tensor& data, const Tensor& pool,
                                                  int64_t filter) {
  check_pair(data, pool, 1);
  const Tensor packed = imle_knn_pack(data, pool, filter);
  const std::vector<int64_t> shape{data.size(0), pool.size(0)};
  Tensor lower = empty_like_device(data, shape, ScalarType::Double);
  Tensor upper = empty_like_device(data, shape, ScalarType::Double);
  cpu::filter_bounds(packed.const_data_ptr(), matrix_of(pool, "pool"),
                     static_cast<double*>(lower.mutable_data_ptr()),
                     static_cast<double*>(upper.mutable_data_ptr()));
  return {lower, upper};
}

// The basis and the projected data, or two empty tensors where this processor cannot project.
std::tuple<Tensor, Tensor> imle_knn_project(const Tensor& data, const Tensor& packed,
                                            const Tensor& basis) {
  check_pair(data, basis, 1);
  const Matrix x = matrix_of(data, "data");
  const Matrix axes = matrix_of(basis, "basis");
  if (!cpu::can_project(x.columns)) return {empty_bytes(data, 0), empty_bytes(data, 0)};
  Tensor packed_basis = empty_bytes(data, cpu::basis_bytes(axes.rows, axes.columns));
  Tensor projected = empty_bytes(data, cpu::projected_bytes(x.rows, axes.rows));
  cpu::pack_basis(axes, packed_basis.mutable_data_ptr());
  cpu::pack_projected(x, packed.const_data_ptr(), packed_basis.const_data_ptr(),
                      projected.mutable_data_ptr());
  return {packed_basis, projected};
}

std::tuple<int64_t, bool> imle_knn_update(const Tensor& data, const Tensor& packed, int64_t filter,
                                          const Tensor& basis, const Tensor& projected,
                                          const Tensor& pool, int64_t offset,
                                          std::optional<double> reject_below, Tensor distances,
                                          Tensor indices) {
  check_pair(data, pool, 1);
  const Matrix x = matrix_of(data, "data");
  STD_TORCH_CHECK(packed.numel() ==
                      static_cast<int64_t>(cpu::packed_bytes(x.rows, x.columns, filter_of(filter))),
                  "packed: made for other data or another instruction set");
  const Neighbours result = running_neighbours(x, distances, indices);
  const PoolRange range{matrix_of(pool, "pool"), offset, rejection(reject_below)};
  const cpu::Unpacked way = cpu::choose_unpacked(x, range, result.k);
  if (way.pays()) {
    cpu::search_unpacked(way, x, range, result, torch_threads());
    return {filter, true};
  }
  cpu::Projection projection;
  if (basis.numel() > 0) projection = {basis.const_data_ptr(), projected.const_data_ptr()};
  const cpu::Outcome outcome =
      cpu::search(x, packed.const_data_ptr(), projection, range, result, torch_threads());
  return {static_cast<int64_t>(outcome.filter), outcome.projection_pays};
}

std::tuple<Tensor, Tensor> imle_knn_finish(const Tensor& data, const Tensor& distances,
                                           const Tensor& indices) {
  const Matrix x = matrix_of(data, "data");
  const Neighbours result = running_neighbours(x, distances, indices);
  Tensor rounded = empty_like_device(distances, {x.rows, result.k}, ScalarType::Float);
  Tensor copied = empty_alike(indices);
  cpu::finish(x, result, static_cast<float*>(rounded.mutable_data_ptr()));
  std::copy_n(result.indices, x.rows * result.k, static_cast<int64_t*>(copied.mutable_data_ptr()));
  return {rounded, copied};
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def("imle_knn(Tensor data, Tensor pool, int k, float? reject_below) -> (Tensor, Tensor)");
  m.def(
      "imle_knn_no_grad(Tensor data, Tensor pool, int k, float? reject_below) -> (Tensor, Tensor)");
  m.def("imle_knn_first_filter(Tensor data) -> int");
  m.def("imle_knn_pack(Tensor data, Tensor sample, int filter) -> Tensor");
  m.def("imle_knn_filter_bounds(Tensor data, Tensor pool, int filter) -> (Tensor, Tensor)");
  m.def("imle_knn_packing_fits(Tensor packed, Tensor sample) -> bool");
  m.def("imle_knn_project(Tensor data, Tensor packed, Tensor basis) -> (Tensor, Tensor)");
  m.def(
      "imle_knn_update(Tensor data, Tensor packed, int filter, Tensor basis, Tensor projected, "
      "Tensor pool, int offset, float? reject_below, Tensor(a!) distances, Tensor(b!) indices) "
      "-> (int, bool)");
  m.def("imle_knn_finish(Tensor data, Tensor distances, Tensor indices) -> (Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("imle_knn", TORCH_BOX(&naign::glue::imle_knn));
  m.impl("imle_knn_no_grad", TORCH_BOX(&naign::glue::imle_knn));
  m.impl("imle_knn_first_filter", TORCH_BOX(&naign::glue::imle_knn_first_filter));
  m.impl("imle_knn_pack", TORCH_BOX(&naign::glue::imle_knn_pack));
  m.impl("imle_knn_filter_bounds", TORCH_BOX(&naign::glue::imle_knn_filter_bounds));
  m.impl("imle_knn_packing_fits", TORCH_BOX(&naign::glue::imle_knn_packing_fits));
  m.impl("imle_knn_project", TORCH_BOX(&naign::glue::imle_knn_project));
  m.impl("imle_knn_update", TORCH_BOX(&naign::glue::imle_knn_update));
  m.impl("imle_knn_finish", TORCH_BOX(&naign::glue::imle_knn_finish));
}
