#include "packed_data.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "aligned.h"
#include "naign/rounding.h"
#include "rows.h"

namespace naign::cpu {
namespace {

constexpr int64_t sample_rows = 64;
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

Query query_of(const PackedRow& row, const float* packed, const std::vector<float>& zeros,
               bool finite, const Kernels& kernels) {
  if (!finite) return {0, 0, 0, RowKind::excluded};
  if (!(row.reach <= largest_reach)) return {0, 0, 0, RowKind::wild};
  const double norm = kernels.distance(packed, zeros.data(), static_cast<int64_t>(zeros.size()));
  return {norm, row.error, row.reach, RowKind::usual};
}

void pack_panel(const Rows& data, int64_t panel, const Kernels& kernels, PackedData& packed) {
  const int64_t columns = packed.columns;
  const std::vector<float> zeros(columns, 0.0f);
  std::vector<float> scratch(columns);
  std::vector<float> row(columns);
  float* out = packed.panel(panel);
  std::fill_n(out, columns * packed.lanes, 0.0f);
  for (int64_t lane = 0; lane < packed.lanes; ++lane) {
    const int64_t index = panel * packed.lanes + lane;
    Query& query = packed.queries()[index];
    query = {0, 0, 0, RowKind::excluded};
    if (index >= data.count()) continue;
    const float* values = data.get(index, scratch.data());
    const bool finite = kernels.all_finite(values, columns);
    const PackedRow info = kernels.float32.pack(values, packed.centre(), packed.scale, columns,
                                                columns, true, row.data());
    query = query_of(info, row.data(), zeros, finite, kernels);
    if (query.kind != RowKind::usual) continue;
    for (int64_t k = 0; k < columns; ++k) out[k * packed.lanes + lane] = row[k];
  }
}

}  // namespace

PackedData packed_layout(int64_t rows, int64_t columns) {
  const int64_t lanes = kernels(isa()).lanes;
  return {rows, columns, (rows + lanes - 1) / lanes, lanes, isa(), 1.0f};
}

size_t packed_bytes(int64_t rows, int64_t columns) { return packed_layout(rows, columns).bytes(); }

void pack_data(const Matrix& data, const Matrix& sample, void* buffer, const Parallel& parallel) {
  auto& packed = *new (buffer) PackedData(packed_layout(data.rows, data.columns));
  const Kernels& table = kernels(packed.isa);
  const Sample pool_sample = draw(sample, table);
  const std::vector<float> centre = robust_mean(pool_sample, data.columns, table);
  const float pool_size = median(magnitudes(pool_sample, centre, table));
  const float data_size = median(magnitudes(draw(data, table), centre, table));
  packed.scale = scale_for(std::max(pool_size, data_size));
  for (int64_t k = 0; k < data.columns; ++k) packed.centre()[k] = centre[k] * packed.scale;
  const Rows rows(data, table);
  parallel.run(packed.panels, [&](int64_t panel) { pack_panel(rows, panel, table, packed); });
}

bool packing_fits(const void* buffer, const Matrix& sample) {
  const auto& packed = *static_cast<const PackedData*>(buffer);
  if (packed.isa != isa()) return false;
  const Kernels& table = kernels(packed.isa);
  const Sample pool_sample = draw(sample, table);
  const std::vector<float> own_centre = robust_mean(pool_sample, packed.columns, table);
  std::vector<float> old_centre(packed.centre(), packed.centre() + packed.columns);
  for (float& value : old_centre) value /= packed.scale;
  const float spread = median(magnitudes(pool_sample, own_centre, table));
  const float reach = median(magnitudes(pool_sample, old_centre, table));
  return reach <= 2 * spread && spread * packed.scale <= largest_scaled_spread;
}

}  // namespace naign::cpu
