#include "imle_knn/cpu/projection.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "imle_knn/bounds.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

// At least |P|^2 for the rows that `axes` stands for: the largest row sum of |P P^T|.
double squared_norm(const PackedData& axes) {
  const int64_t columns = axes.units * 2;
  std::vector<std::vector<double>> rows(axes.rows, std::vector<double>(columns));
  for (int64_t i = 0; i < axes.rows; ++i) {
    const auto* panel = reinterpret_cast<const int16_t*>(axes.panel(i / axes.lanes));
    const double scale = axes.lane_scales[i] / 2.0;
    for (int64_t k = 0; k < columns; ++k) {
      rows[i][k] = scale * panel[(k / 2 * axes.lanes + i % axes.lanes) * 2 + k % 2];
    }
  }
  double largest = 0;
  for (const auto& a : rows) {
    double sum = 0;
    for (const auto& b : rows) {
      double product = 0;
      for (int64_t k = 0; k < columns; ++k) product += a[k] * b[k];
      sum += std::fabs(product);
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

PackedData pack_axes(const Matrix& axes) {
  PackedData packed = pack_plain(axes, Filter::int16);
  const double norm = std::sqrt(squared_norm(packed));
  const auto shrink = static_cast<float>((1 - 0x1p-20) / std::max(norm, 0x1p-60));
  for (int64_t i = 0; i < axes.rows; ++i) packed.lane_scales[i] *= shrink;
  return packed;
}

// F of every usual row of the data, zeros for the others, and what each is in error at most.
struct Projected {
  std::vector<float> values;
  std::vector<float> error;

  Projected(const Matrix& data, const PackedData& packed, const PackedData& axes) {
    Projector projector(axes, packed);
    const Rows rows(data, kernels(packed.isa));
    const int64_t columns = projector.columns();
    const int64_t tile_rows = projector.tile_rows();
    values.resize(data.rows * columns);
    error.resize(data.rows);
    std::vector<float> scratch(tile_rows * data.columns);
    std::vector<const float*> tile;
    std::vector<int64_t> indices;
    for (int64_t i = 0; i < data.rows; ++i) {
      if (packed.queries[i].kind == RowKind::usual) {
        tile.push_back(rows.get(i, scratch.data() + tile.size() * data.columns));
        indices.push_back(i);
      }
      if (static_cast<int64_t>(tile.size()) < tile_rows && i + 1 < data.rows) continue;
      projector.project(tile.data(), static_cast<int64_t>(tile.size()));
      for (size_t r = 0; r < tile.size(); ++r) {
        std::copy_n(projector.values(r), columns, values.data() + indices[r] * columns);
        error[indices[r]] = projector.error(r);
      }
      tile.clear();
      indices.clear();
    }
  }
};

}  // namespace

Projector::Projector(const PackedData& axes, const PackedData& packed)
    : axes_(axes),
      packed_(packed),
      kernels_(kernels(packed.isa)),
      block_(kernels_.tile_rows, axes.units),
      scores_(aligned_array<float>(kernels_.tile_rows * axes.lanes)),
      thresholds_(aligned_array<float>(axes.lanes)),
      values_(kernels_.tile_rows * columns()),
      error_(kernels_.tile_rows),
      kind_(kernels_.tile_rows) {
  std::fill_n(thresholds_.get(), axes.lanes, std::numeric_limits<float>::infinity());
}

void Projector::project(const float* const* rows, int64_t count) {
  const FilterKernel& filter = kernels_.filter(axes_.filter);
  std::vector<PackedRow> packed_rows(kernels_.tile_rows);
  for (int64_t r = 0; r < kernels_.tile_rows; ++r) {
    block_.exclude(r, RowKind::excluded);
    if (r >= count) continue;
    packed_rows[r] = filter.pack_row(rows[r], packed_.centre.get(), packed_.scale, packed_.columns,
                                     axes_.units, block_.row(r));
    block_.scale[r] = packed_rows[r].scale;
  }
  // Without norms a score is -2 <p, y>.
  std::fill_n(block_.norm.get(), kernels_.tile_rows, 0.0f);
  for (int64_t panel = 0; panel < axes_.panels; ++panel) {
    const Tile tile{.panel = axes_.panel(panel),
                    .rows = block_.row(0),
                    .row_stride = block_.row_stride,
                    .units = block_.units,
                    .first = true,
                    .last = true,
                    .sums = nullptr,
                    .row_norm = block_.norm.get(),
                    .row_start = block_.start.get(),
                    .row_scale = block_.scale.get(),
                    .lane_scale = axes_.lane_scales.get() + panel * axes_.lanes,
                    .threshold = thresholds_.get(),
                    .scores = scores_.get()};
    filter.tile(tile);
    const int64_t first = panel * axes_.lanes;
    const int64_t lanes = std::min(axes_.lanes, axes_.rows - first);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        values_[r * columns() + first + lane] = scores_[r * axes_.lanes + lane] / -2;
      }
    }
  }
  for (int64_t r = 0; r < count; ++r) finish_row(r, packed_rows[r]);
}

// The last coordinate, and the error: lemma 8.
void Projector::finish_row(int64_t r, const PackedRow& row) {
  kind_[r] = row.norm_bound <= largest_row_norm_bound ? RowKind::usual : RowKind::out_of_range;
  if (kind_[r] == RowKind::out_of_range) return;
  float* values = values_.data() + r * columns();
  double inside = 0;
  for (int64_t i = 0; i < axes_.rows; ++i) inside += double{values[i]} * double{values[i]};
  const double outside = std::sqrt(std::max(0.0, row.norm - inside));
  const double norm_bound = row.norm_bound;
  const double doubt = 3 * gamma(5) * norm_bound * norm_bound + 0x1p-100;
  const double outside_error = std::min(std::sqrt(doubt), doubt / outside);
  values[axes_.rows] = static_cast<float>(outside);
  error_[r] = round_up(row.quantisation_error + gamma(6) * norm_bound +
                       outside_error * (1 + 0x1p-40) + 0x1p-100);
}

Projection project_data(const Matrix& data, const PackedData& packed, const Matrix& axes) {
  PackedData packed_axes = pack_axes(axes);
  const Projected projected(data, packed, packed_axes);
  const int64_t columns = packed_axes.rows + 1;
  const Matrix matrix{projected.values.data(), Dtype::float32, data.rows, columns, columns, 1};
  PackedData packed_data = pack_plain(matrix, Filter::int8);
  for (int64_t i = 0; i < data.rows; ++i) {
    packed_data.queries[i].kind = packed.queries[i].kind;
    packed_data.queries[i].quantisation_error += projected.error[i];
  }
  return {std::move(packed_axes), std::move(packed_data)};
}

bool can_project(int64_t columns) {
  return has_filter(Filter::int8) && has_filter(Filter::int16) &&
         columns <= kernels(isa()).filter(Filter::int16).largest_columns;
}

}  // namespace naign::cpu
