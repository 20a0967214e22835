// The emulated CUDA search as operators, for tests.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "imle_knn/emulation.h"

#include <optional>
#include <tuple>

#include "imle_knn/binding.h"

namespace naign::glue {
namespace {

// As imle_knn, with the limits of the plan given (0: the plan's own), and how often each way was
// taken: candidates, overflow, exact, wild.
std::tuple<Tensor, Tensor, Tensor> imle_knn_emulated(const Tensor& data, const Tensor& pool,
                                                     int64_t k, std::optional<double> reject_below,
                                                     int64_t capacity, int64_t chunk_rows,
                                                     int64_t parts, int64_t tile_columns) {
  const Matrix x = matrix_of(data, "data");
  const PoolRange range{matrix_of(pool, "pool"), 0, rejection(reject_below)};
  Tensor distances = torch::stable::new_empty(data, {x.rows, k}, ScalarType::Double);
  Tensor indices = torch::stable::new_empty(data, {x.rows, k}, ScalarType::Long);
  Tensor passes = torch::stable::new_empty(data, {int64_t{4}}, ScalarType::Long);
  const Neighbours result{static_cast<double*>(distances.mutable_data_ptr()),
                          static_cast<int64_t*>(indices.mutable_data_ptr()), x.rows, k};
  result.clear();
  const bool tightens = k == 1 && !(range.reject_below > 0);
  cuda::FilterLimits plan =
      cuda::filter_limits({1, x.rows, range.rows.rows, x.columns, k, !tightens}, capacity);
  if (chunk_rows > 0) plan.chunk_rows = chunk_rows;
  if (parts > 0) plan.parts = parts;
  const emulation::Passes found = emulation::search(x, range, result, plan, tile_columns);
  auto* counts = static_cast<int64_t*>(passes.mutable_data_ptr());
  counts[0] = found.candidates;
  counts[1] = found.overflow;
  counts[2] = found.exact;
  counts[3] = found.wild;
  return {distances, indices, passes};
}

// a b^T of int8 matrices of whole panels as the tensor cores compute it from packed slabs.
Tensor imle_knn_emulated_products(const Tensor& a, const Tensor& b, bool wgmma) {
  STD_TORCH_CHECK(a.scalar_type() == ScalarType::Char && b.scalar_type() == ScalarType::Char &&
                      a.is_contiguous() && b.is_contiguous() && a.size(0) % 128 == 0 &&
                      b.size(0) % 256 == 0 && a.size(1) == b.size(1),
                  "a, b: expected contiguous int8 of (128 n, K) and (256 m, K)");
  Tensor sums = torch::stable::new_empty(a, {a.size(0), b.size(0)}, ScalarType::Int);
  const auto products = wgmma ? emulation::wgmma_products : emulation::mma_products;
  products(static_cast<const int8_t*>(a.const_data_ptr()),
           static_cast<const int8_t*>(b.const_data_ptr()), a.size(0), b.size(0), a.size(1),
           static_cast<int32_t*>(sums.mutable_data_ptr()));
  return sums;
}

// The row and column tile of every number in the order in which persistent blocks take them.
Tensor imle_knn_emulated_tiles(const Tensor& like, int64_t row_tiles, int64_t column_tiles) {
  const cuda::Tiles tiles{row_tiles, column_tiles};
  Tensor order = torch::stable::new_empty(like, {tiles.count(), int64_t{2}}, ScalarType::Long);
  auto* out = static_cast<int64_t*>(order.mutable_data_ptr());
  for (int64_t tile = 0; tile < tiles.count(); ++tile) {
    tiles.at(tile, out[2 * tile], out[2 * tile + 1]);
  }
  return order;
}

// group_rows, capacity, chunk_rows, parts, seed_rows, growth and first_rows of a search, and the
// lengths of its first chunks.
std::tuple<Tensor, Tensor> imle_knn_emulated_plan(const Tensor& like, int64_t rows,
                                                  int64_t pool_rows, int64_t columns, int64_t k) {
  const cuda::FilterLimits plan = cuda::filter_limits({1, rows, pool_rows, columns, k, false});
  const int64_t numbers[]{plan.group_rows, plan.capacity, plan.chunk_rows, plan.parts,
                          plan.seed_rows,  plan.growth,   plan.first_rows};
  Tensor limits = torch::stable::new_empty(like, {int64_t{7}}, ScalarType::Long);
  std::copy(std::begin(numbers), std::end(numbers),
            static_cast<int64_t*>(limits.mutable_data_ptr()));
  constexpr int64_t shown = 64;
  Tensor chunks = torch::stable::new_empty(like, {shown}, ScalarType::Long);
  int64_t seen = 0;
  for (int64_t i = 0; i < shown; ++i) {
    const int64_t next = seen < pool_rows ? plan.next_chunk(seen, pool_rows - seen) : 0;
    static_cast<int64_t*>(chunks.mutable_data_ptr())[i] = next;
    seen += next;
  }
  return {limits, chunks};
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "imle_knn_emulated(Tensor data, Tensor pool, int k, float? reject_below, int capacity, "
      "int chunk_rows, int parts, int tile_columns) -> (Tensor, Tensor, Tensor)");
  m.def("imle_knn_emulated_products(Tensor a, Tensor b, bool wgmma) -> Tensor");
  m.def("imle_knn_emulated_tiles(Tensor like, int row_tiles, int column_tiles) -> Tensor");
  m.def(
      "imle_knn_emulated_plan(Tensor like, int rows, int pool_rows, int columns, int k) -> "
      "(Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("imle_knn_emulated", TORCH_BOX(&naign::glue::imle_knn_emulated));
  m.impl("imle_knn_emulated_products", TORCH_BOX(&naign::glue::imle_knn_emulated_products));
  m.impl("imle_knn_emulated_tiles", TORCH_BOX(&naign::glue::imle_knn_emulated_tiles));
  m.impl("imle_knn_emulated_plan", TORCH_BOX(&naign::glue::imle_knn_emulated_plan));
}
