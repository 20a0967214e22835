#include "imle_knn/cpu/filter_bounds.h"

#include <algorithm>
#include <vector>

#include "imle_knn/cpu/filter.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

// The bounds of one tile's pairs, in the units of the data.
void write_tile(const Stage& stage, const Block& block, int64_t panel, int64_t first_row,
                const float* scores, int64_t pool_rows, double* lower, double* upper) {
  const PackedData& packed = stage.packed;
  const double squared_scale = static_cast<double>(packed.scale) * packed.scale;
  const int64_t tile_rows = kernels(packed.isa).tile_rows;
  for (int64_t r = first_row; r < std::min(first_row + tile_rows, block.count); ++r) {
    for (int64_t lane = 0; lane < packed.lanes; ++lane) {
      const int64_t row = panel * packed.lanes + lane;
      if (row >= packed.rows) continue;
      const Query& query = packed.queries[row];
      if (query.kind != RowKind::usual || block.kind[r] != RowKind::usual) continue;
      const float score = scores[(r - first_row) * packed.lanes + lane];
      const int64_t at = row * pool_rows + block.first + r;
      lower[at] =
          stage.bounds.lower(query, score, block.quantisation_error[r], block.norm_bound[r]) /
          squared_scale;
      upper[at] =
          stage.bounds.upper(query, score, block.quantisation_error[r], block.norm_bound[r]) /
          squared_scale;
    }
  }
}

}  // namespace

void filter_bounds(const PackedData& packed, const Matrix& pool, double* lower, double* upper) {
  const Kernels& table = kernels(packed.isa);
  const Stage stage(packed);
  const Rows rows(pool, table);
  std::fill_n(lower, packed.rows * pool.rows, 0.0);
  std::fill_n(upper, packed.rows * pool.rows, infinity);
  std::vector<float> scratch(pool.columns);
  const auto scores = aligned_array<float>(table.tile_rows * packed.lanes);
  const auto thresholds = aligned_array<float>(packed.lanes);
  std::fill_n(thresholds.get(), packed.lanes, float_infinity);
  Block block(table.tile_rows, packed.units);
  for (int64_t first = 0; first < pool.rows; first += table.tile_rows) {
    block.clear(first, std::min(table.tile_rows, pool.rows - first));
    for (int64_t r = 0; r < table.tile_rows; ++r) {
      const float* values = r < block.count ? rows.get(first + r, scratch.data()) : nullptr;
      if (values != nullptr && table.all_finite(values, pool.columns)) {
        block.pack(r, values, stage);
      } else {
        block.exclude(r, RowKind::excluded);
      }
    }
    for (int64_t panel = 0; panel < packed.panels; ++panel) {
      const Tile tile{.panel = packed.panel(panel),
                      .rows = block.row(0),
                      .row_stride = block.row_stride,
                      .units = block.units,
                      .first = true,
                      .last = true,
                      .sums = nullptr,
                      .row_norm = block.norm.get(),
                      .row_start = block.start.get(),
                      .row_scale = block.scale.get(),
                      .lane_scale = packed.lane_scales.get() + panel * packed.lanes,
                      .threshold = thresholds.get(),
                      .scores = scores.get()};
      if (!stage.filter.tile(tile)) continue;
      write_tile(stage, block, panel, 0, scores.get(), pool.rows, lower, upper);
    }
  }
}

}  // namespace naign::cpu
