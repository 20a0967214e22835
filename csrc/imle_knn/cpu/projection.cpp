#include "imle_knn/cpu/projection.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "imle_knn/bounds.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

// At least |P|^2 for the rows that `basis` stands for: the largest row sum of |P P^T|.
double squared_norm(const PackedData& basis) {
  const int64_t columns = basis.units * 2;
  std::vector<std::vector<double>> rows(basis.rows, std::vector<double>(columns));
  for (int64_t i = 0; i < basis.rows; ++i) {
    const auto* panel = reinterpret_cast<const int16_t*>(basis.panel(i / basis.lanes));
    const double unit = basis.lane_scales()[i] / 2.0;
    for (int64_t k = 0; k < columns; ++k) {
      rows[i][k] = unit * panel[(k / 2 * basis.lanes + i % basis.lanes) * 2 + k % 2];
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

}  // namespace

Projector::Projector(const PackedData& basis, const PackedData& packed)
    : basis_(basis),
      packed_(packed),
      kernels_(kernels(packed.isa)),
      block_(kernels_.tile_rows, basis.units),
      scores_(aligned_array<float>(kernels_.tile_rows * basis.lanes)),
      thresholds_(aligned_array<float>(basis.lanes)),
      values_(kernels_.tile_rows * columns()),
      error_(kernels_.tile_rows),
      kind_(kernels_.tile_rows) {
  std::fill_n(thresholds_.get(), basis.lanes, std::numeric_limits<float>::infinity());
}

void Projector::project(const float* const* rows, int64_t count) {
  const FilterKernel& filter = kernels_.filter(basis_.filter);
  std::vector<PackedRow> packed_rows(kernels_.tile_rows);
  for (int64_t r = 0; r < kernels_.tile_rows; ++r) {
    block_.exclude(r, RowKind::excluded);
    if (r >= count) continue;
    packed_rows[r] = filter.pack_row(rows[r], packed_.centre(), packed_.scale, packed_.columns,
                                     basis_.units, block_.row(r));
    block_.scale[r] = packed_rows[r].scale;
  }
  // Without norms a score is -2 <p, y>.
  std::fill_n(block_.norm.get(), kernels_.tile_rows, 0.0f);
  for (int64_t panel = 0; panel < basis_.panels; ++panel) {
    const Tile tile{.panel = basis_.panel(panel),
                    .rows = block_.row(0),
                    .row_stride = block_.row_stride,
                    .units = block_.units,
                    .first = true,
                    .last = true,
                    .sums = nullptr,
                    .row_norm = block_.norm.get(),
                    .row_start = block_.start.get(),
                    .row_scale = block_.scale.get(),
                    .lane_scale = basis_.lane_scales() + panel * basis_.lanes,
                    .threshold = thresholds_.get(),
                    .scores = scores_.get()};
    filter.tile(tile);
    const int64_t first = panel * basis_.lanes;
    const int64_t lanes = std::min(basis_.lanes, basis_.rows - first);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t lane = 0; lane < lanes; ++lane) {
        values_[r * columns() + first + lane] = scores_[r * basis_.lanes + lane] / -2;
      }
    }
  }
  for (int64_t r = 0; r < count; ++r) finish_row(r, packed_rows[r]);
}

// The last coordinate, and the error: lemma 8.
void Projector::finish_row(int64_t r, const PackedRow& row) {
  kind_[r] = row.reach <= largest_row_reach ? RowKind::usual : RowKind::wild;
  if (kind_[r] == RowKind::wild) return;
  float* values = values_.data() + r * columns();
  double inside = 0;
  for (int64_t i = 0; i < basis_.rows; ++i) inside += double{values[i]} * double{values[i]};
  const double outside = std::sqrt(std::max(0.0, row.norm - inside));
  const double reach = row.reach;
  const double doubt = 3 * gamma(5) * reach * reach + 0x1p-100;
  const double outside_error = std::min(std::sqrt(doubt), doubt / outside);
  values[basis_.rows] = static_cast<float>(outside);
  error_[r] = round_up(row.error + gamma(6) * reach + outside_error * (1 + 0x1p-40) + 0x1p-100);
}

void pack_basis(const Matrix& basis, void* buffer) {
  auto& packed = *new (buffer) PackedData(packed_layout(basis.rows, basis.columns, Filter::int16));
  pack_plain(basis, packed);
  const double norm = std::sqrt(squared_norm(packed));
  const auto shrink = static_cast<float>((1 - 0x1p-20) / std::max(norm, 0x1p-60));
  for (int64_t i = 0; i < basis.rows; ++i) packed.lane_scales()[i] *= shrink;
}

size_t basis_bytes(int64_t rank, int64_t columns) {
  return packed_bytes(rank, columns, Filter::int16);
}

size_t projected_bytes(int64_t rows, int64_t rank) {
  return packed_bytes(rows, rank + 1, Filter::int8);
}

void pack_projected(const Matrix& data, const void* prepared, const void* basis, void* buffer) {
  const auto& packed = *static_cast<const PackedData*>(prepared);
  const auto& axes = *static_cast<const PackedData*>(basis);
  const Kernels& table = kernels(packed.isa);
  const Rows rows(data, table);
  Projector projector(axes, packed);
  const int64_t columns = projector.columns();
  std::vector<float> projected(data.rows * columns, 0.0f);
  std::vector<float> error(data.rows, 0.0f);
  const int64_t tile_rows = projector.tile_rows();
  std::vector<float> scratch(tile_rows * data.columns);
  std::vector<const float*> tile;
  std::vector<int64_t> indices;
  for (int64_t i = 0; i < data.rows; ++i) {
    if (packed.queries()[i].kind == RowKind::usual) {
      tile.push_back(rows.get(i, scratch.data() + tile.size() * data.columns));
      indices.push_back(i);
    }
    if (static_cast<int64_t>(tile.size()) < tile_rows && i + 1 < data.rows) continue;
    projector.project(tile.data(), static_cast<int64_t>(tile.size()));
    for (size_t r = 0; r < tile.size(); ++r) {
      std::copy_n(projector.values(r), columns, projected.data() + indices[r] * columns);
      error[indices[r]] = projector.error(r);
    }
    tile.clear();
    indices.clear();
  }
  const Matrix matrix{projected.data(), Dtype::float32, data.rows, columns, columns, 1};
  auto& out = *new (buffer) PackedData(packed_layout(data.rows, columns, Filter::int8));
  pack_plain(matrix, out);
  for (int64_t i = 0; i < data.rows; ++i) {
    out.queries()[i].kind = packed.queries()[i].kind;
    out.queries()[i].error += error[i];
  }
}

bool can_project(int64_t columns) {
  return has_filter(Filter::int8) && has_filter(Filter::int16) &&
         columns <= kernels(isa()).filter(Filter::int16).largest_columns;
}

}  // namespace naign::cpu
