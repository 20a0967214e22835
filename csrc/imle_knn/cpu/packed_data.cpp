#include "imle_knn/cpu/packed_data.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

constexpr int64_t sample_rows = 64;
// Below, the distances between neighbours are too small a part of the norms for 8 bits.
constexpr int64_t least_integer_columns = 24;
constexpr float largest_scaled_spread = 1024;

struct Sample {
  std::vector<const float*> rows;  // finite rows only
  std::vector<float> storage;
};

Sample draw(const Matrix& matrix, const Kernels& kernels) {
  Sample sample;
  const Rows rows(matrix, kernels);
  const int64_t count = std::min(sample_rows, rows.count());
  sample.storage.resize(static_cast<size_t>(count) * rows.columns());
  for (int64_t i = 0; i < count; ++i) {
    float* scratch = sample.storage.data() + i * rows.columns();
    const float* row = rows.get(i * rows.count() / count, scratch);
    if (kernels.all_finite(row, rows.columns())) sample.rows.push_back(row);
  }
  return sample;
}

float median(std::vector<float> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<int64_t>(values.size()) / 2;
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

std::vector<float> magnitudes(const Sample& sample, const std::vector<float>& centre,
                              const Kernels& kernels) {
  std::vector<float> found;
  for (const float* row : sample.rows) {
    const float value =
        kernels.largest_magnitude(row, centre.data(), static_cast<int64_t>(centre.size()));
    if (std::isfinite(value)) found.push_back(value);
  }
  return found;
}

// The mean of the sample without its outliers. Distances do not depend on the centre; bounds are
// tightest where the pool is near it, also for a generator that collapsed far from the data.
std::vector<float> robust_mean(const Sample& sample, int64_t columns, const Kernels& kernels) {
  std::vector<float> mean(columns, 0.0f);
  const float usual = median(magnitudes(sample, mean, kernels));
  std::vector<double> sum(columns, 0.0);
  int64_t taken = 0;
  for (const float* row : sample.rows) {
    const float largest = kernels.largest_magnitude(row, mean.data(), columns);
    if (!(largest <= 8 * usual)) continue;
    for (int64_t k = 0; k < columns; ++k) sum[k] += row[k];
    ++taken;
  }
  for (int64_t k = 0; k < columns && taken > 0; ++k) {
    mean[k] = static_cast<float>(sum[k] / static_cast<double>(taken));
  }
  return mean;
}

// A power of two that brings values of this size near one.
float scale_for(float magnitude) {
  if (!(magnitude > 0) || !std::isfinite(magnitude)) return 1;
  return std::ldexp(1.0f, std::clamp(-std::ilogb(magnitude), -126, 126));
}

Query query_of(const PackedRow& row, bool finite) {
  if (!finite) return {0, 0, 0, RowKind::excluded};
  if (!(row.norm_bound <= largest_row_norm_bound)) return {0, 0, 0, RowKind::out_of_range};
  return {row.norm, row.quantisation_error, row.norm_bound, RowKind::usual};
}

void pack_panel(const Rows& data, int64_t panel, const Kernels& kernels, PackedData& packed) {
  const FilterKernel& filter = kernels.filter(packed.filter);
  std::vector<float> scratch(packed.columns);
  std::vector<uint32_t> row(packed.units);
  auto* out = reinterpret_cast<uint32_t*>(packed.values.get() + panel * packed.panel_bytes());
  for (int64_t lane = 0; lane < packed.lanes; ++lane) {
    const int64_t index = panel * packed.lanes + lane;
    Query& query = packed.queries[index];
    query = {0, 0, 0, RowKind::excluded};
    if (index >= data.count()) continue;
    const float* values = data.get(index, scratch.data());
    const bool finite = kernels.all_finite(values, packed.columns);
    const PackedRow info =
        filter.pack_query(values, packed.centre.get(), packed.scale, packed.columns, packed.units,
                          reinterpret_cast<char*>(row.data()));
    query = query_of(info, finite);
    if (query.kind != RowKind::usual) continue;
    packed.lane_scales[index] = 2 * info.scale;
    for (int64_t k = 0; k < packed.units; ++k) out[k * packed.lanes + lane] = row[k];
  }
}

void pack_panels(const Matrix& data, PackedData& packed, const Parallel& parallel) {
  const Kernels& table = kernels(packed.isa);
  const Rows rows(data, table);
  parallel.run(packed.panels, [&](int64_t panel) { pack_panel(rows, panel, table, packed); });
}

}  // namespace

PackedData::PackedData(int64_t data_rows, int64_t data_columns, Filter chosen)
    : rows(data_rows), columns(data_columns), isa(cpu::isa()), filter(chosen) {
  const Kernels& table = kernels(isa);
  const int64_t per_unit = table.filter(filter).elements_per_unit;
  units = (columns + per_unit - 1) / per_unit;
  lanes = table.lanes;
  panels = (rows + lanes - 1) / lanes;
  centre = aligned_array<float>(columns);
  queries = aligned_array<Query>(panels * lanes);
  lane_scales = aligned_array<float>(panels * lanes);
  values = aligned_array<char>(panels * panel_bytes());
}

bool has_filter(Filter filter) { return kernels(isa()).filter(filter).tile != nullptr; }

Filter first_filter(int64_t columns) {
  if (columns < least_integer_columns) return Filter::float32;
  const Kernels& table = kernels(isa());
  for (const Filter filter : {Filter::int8, Filter::int16}) {
    const FilterKernel& kernel = table.filter(filter);
    if (kernel.tile != nullptr && columns <= kernel.largest_columns) return filter;
  }
  return Filter::float32;
}

Filter tighter_filter(Filter filter) {
  return filter == Filter::int8 ? Filter::int16 : Filter::float32;
}

PackedData pack_data(const Matrix& data, const Matrix& sample, Filter filter,
                     const Parallel& parallel) {
  PackedData packed(data.rows, data.columns, filter);
  const Kernels& table = kernels(packed.isa);
  const Sample pool_sample = draw(sample, table);
  const std::vector<float> centre = robust_mean(pool_sample, data.columns, table);
  const float pool_size = median(magnitudes(pool_sample, centre, table));
  const float data_size = median(magnitudes(draw(data, table), centre, table));
  packed.scale = scale_for(std::max(pool_size, data_size));
  for (int64_t k = 0; k < data.columns; ++k) packed.centre[k] = centre[k] * packed.scale;
  pack_panels(data, packed, parallel);
  return packed;
}

PackedData pack_again(const Matrix& data, const PackedData& like, Filter filter) {
  PackedData packed(data.rows, data.columns, filter);
  packed.scale = like.scale;
  std::copy_n(like.centre.get(), like.columns, packed.centre.get());
  pack_panels(data, packed, on_this_thread());
  return packed;
}

PackedData pack_plain(const Matrix& data, Filter filter) {
  PackedData packed(data.rows, data.columns, filter);
  pack_panels(data, packed, on_this_thread());
  return packed;
}

bool packing_fits(const PackedData& packed, const Matrix& sample) {
  const Kernels& table = kernels(packed.isa);
  const Sample pool_sample = draw(sample, table);
  const std::vector<float> own_centre = robust_mean(pool_sample, packed.columns, table);
  std::vector<float> old_centre(packed.centre.get(), packed.centre.get() + packed.columns);
  for (float& value : old_centre) value /= packed.scale;
  const float spread = median(magnitudes(pool_sample, own_centre, table));
  const float magnitude = median(magnitudes(pool_sample, old_centre, table));
  return magnitude <= 2 * spread && spread * packed.scale <= largest_scaled_spread;
}

}  // namespace naign::cpu
