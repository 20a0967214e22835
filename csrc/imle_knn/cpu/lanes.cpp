// Search among rows of few columns: exact distances of sixteen data rows at a time, one a lane.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

constexpr int64_t chunk_numbers = 1 << 13;

// Rows first, first + 1, ... in float64.
void widen_rows(const Rows& rows, int64_t first, int64_t count, std::vector<float>& scratch,
                double* out) {
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(rows.get(first + i, scratch.data()), rows.columns(), out + i * rows.columns());
  }
}

// The same side by side; lanes without a row are NaN, which is nobody's neighbour.
void widen_lanes(const Rows& rows, int64_t first, int64_t count, std::vector<float>& scratch,
                 double* out) {
  const int64_t columns = rows.columns();
  const float* lanes[lane_rows];
  for (int64_t lane = 0; lane < count; ++lane) {
    lanes[lane] = rows.get(first + lane, scratch.data() + (rows.in_place() ? 0 : lane * columns));
  }
  for (int64_t k = 0; k < columns; ++k) {
    for (int64_t lane = 0; lane < count; ++lane) out[k * lane_rows + lane] = lanes[lane][k];
    std::fill(out + k * lane_rows + count, out + (k + 1) * lane_rows,
              std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace

void search_lanes(const Kernels& table, const Rows& data, const PoolRange& pool, Span data_span,
                  Span pool_span, const Neighbours& result) {
  const Rows rows(pool.rows, table);
  const int64_t columns = data.columns();
  const int64_t chunk = std::min(std::max<int64_t>(1, chunk_numbers / columns), rows.count());
  const auto pool_rows = aligned_array<double>(chunk * columns);
  const auto lanes = aligned_array<double>(columns * lane_rows);
  std::vector<float> scratch(lane_rows * columns);
  for (int64_t j = pool_span.first; j < pool_span.last; j += chunk) {
    const int64_t pool_count = std::min(chunk, pool_span.last - j);
    widen_rows(rows, j, pool_count, scratch, pool_rows.get());
    for (int64_t i = data_span.first; i < data_span.last; i += lane_rows) {
      const int64_t count = std::min(lane_rows, data_span.last - i);
      widen_lanes(data, i, count, scratch, lanes.get());
      double distances[lane_rows];
      int64_t indices[lane_rows];
      const bool whole = count == lane_rows;
      const LaneRows work{.data = lanes.get(),
                          .pool = pool_rows.get(),
                          .pool_rows = pool_count,
                          .columns = columns,
                          .reject_below = pool.reject_below,
                          .first_index = pool.first_index + j,
                          .distances = whole ? result.distances + i : distances,
                          .indices = whole ? result.indices + i : indices};
      if (!whole) {
        std::copy_n(result.distances + i, count, distances);
        std::copy_n(result.indices + i, count, indices);
      }
      table.nearest_by_lanes(work);
      if (!whole) {
        std::copy_n(distances, count, result.distances + i);
        std::copy_n(indices, count, result.indices + i);
      }
    }
  }
}

}  // namespace naign::cpu
