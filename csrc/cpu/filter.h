// The filter of a search: its bounds, the data it works on, and pool rows packed for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "aligned.h"
#include "imle_knn_kernels.h"
#include "naign/rounding.h"
#include "packed_data.h"
#include "round_up.h"

namespace naign::cpu {

// Squared distances that the filter can certify, in scaled units; docs/exactness.md, section 5.
struct Bounds {
  double product_gamma;  // relative error of the product sum, against n_x n_y
  double norm_gamma;     // relative error of |y~|^2 and of the score's last rounding, against n_y^2
  double underflow;      // absolute error
  double slack;          // relative error of float64 arithmetic, here and in the exact distance

  // Integer sums are exact: only their conversion, their scale and the last subtraction round.
  // `distance_columns` is the length of the rows whose distances decide.
  Bounds(int64_t columns, Filter filter, int64_t distance_columns)
      : product_gamma(gamma(filter == Filter::float32 ? static_cast<double>(columns) + 2 : 5)),
        norm_gamma(gamma(filter == Filter::float32 ? static_cast<double>(columns) / 64 + 14 : 4)),
        underflow(0x1p-115 + 4 * underflow_unit * static_cast<double>(columns)),
        slack((static_cast<double>(distance_columns) / 32 + 64) * 0x1p-52) {}

  // At least |score - (|y~|^2 - 2 <x~, y~>)|.
  double score_error(const Query& query, double reach) const {
    return 2 * product_gamma * query.reach * reach + norm_gamma * reach * reach + underflow +
           slack * (query.norm + reach * reach);
  }

  // The distance of x and y is at least sqrt(lower(...)) and at most sqrt(upper(...)).
  double lower(const Query& query, double score, double error, double reach) const {
    const double squared = query.norm + score - score_error(query, reach);
    const double distance = std::sqrt(std::max(0.0, squared)) - query.error - error;
    return distance > 0 ? distance * distance * (1 - slack) : 0;
  }
  double upper(const Query& query, double score, double error, double reach) const {
    const double squared = query.norm + score + score_error(query, reach);
    const double distance = std::sqrt(std::max(0.0, squared)) + query.error + error;
    return distance * distance * (1 + slack);
  }

  // The score above which lower(...) > squared for every row of at most this error and reach.
  double score_beyond(const Query& query, double squared, double error, double reach) const {
    const double distance = std::sqrt(squared * (1 + 2 * slack)) + query.error + error;
    return distance * distance * (1 + slack) - query.norm + score_error(query, reach);
  }

  // The score below which upper(...) < squared for every row of at most this error and reach.
  double score_within(const Query& query, double squared, double error, double reach) const {
    const double distance = std::sqrt(squared * (1 - 2 * slack)) - query.error - error;
    if (!(distance > 0)) return -std::numeric_limits<double>::infinity();
    return distance * distance * (1 - slack) - query.norm - score_error(query, reach);
  }
};

// A float32 sum of squared differences is several times cheaper than the exact distance, and nearly
// as telling: lemma 9.
class Screen {
 public:
  Screen(const Kernels& kernels, int64_t columns)
      : kernels_(kernels),
        columns_(columns),
        factor_(1 - gamma(static_cast<double>(columns) / 64 + 12)),
        underflow_(underflow_unit * static_cast<double>(columns)),
        slack_(1 + 2 * (static_cast<double>(columns) / 32 + 64) * 0x1p-52) {}

  // True only if the exact distance exceeds bound.
  bool farther(const float* x, const float* y, double bound) const {
    if (columns_ < 16) return false;
    const double sum = kernels_.approximate_distance(x, y, columns_);
    const bool usable = sum <= std::numeric_limits<float>::max();  // neither overflow nor NaN
    return usable && sum * factor_ - underflow_ > bound * slack_;
  }

 private:
  const Kernels& kernels_;
  int64_t columns_;
  double factor_;
  double underflow_;
  double slack_;
};

// What a filter needs of the data: the caller's packing, a tighter one made on the way, or a
// projection, whose distances bound the true ones from below only.
struct Stage {
  const PackedData& packed;
  const FilterKernel& filter;
  Bounds bounds;
  const PackedData* basis;

  explicit Stage(const PackedData& prepared) : Stage(prepared, nullptr, prepared.columns) {}
  Stage(const PackedData& prepared, const PackedData* axes, int64_t distance_columns)
      : packed(prepared),
        filter(kernels(prepared.isa).filter(prepared.filter)),
        bounds(prepared.columns, prepared.filter, distance_columns),
        basis(axes) {}

  bool bounds_from_above() const { return basis == nullptr; }
};

// A few pool rows, packed for the filter.
struct Block {
  int64_t first = 0;
  int64_t count = 0;
  int64_t units;
  int64_t row_stride;  // in units; not a multiple of a page, so that rows do not share cache sets
  AlignedArray<char> values;
  AlignedArray<float> norm;
  AlignedArray<float> scale;
  AlignedArray<int32_t> start;
  std::vector<float> error;
  std::vector<float> reach;
  std::vector<RowKind> kind;
  double largest_error = 0;
  double largest_reach = 0;
  bool any_wild = false;

  Block(int64_t rows, int64_t row_units)
      : units(row_units),
        row_stride((row_units + 15) / 16 * 16 + 16),
        values(aligned_array<char>(rows * row_stride * PackedData::unit_bytes)),
        norm(aligned_array<float>(rows)),
        scale(aligned_array<float>(rows)),
        start(aligned_array<int32_t>(rows)),
        error(rows),
        reach(rows),
        kind(rows) {}

  char* row(int64_t r) const { return values.get() + r * row_stride * PackedData::unit_bytes; }

  void clear(int64_t new_first, int64_t new_count) {
    first = new_first;
    count = new_count;
    largest_error = largest_reach = 0;
    any_wild = false;
  }

  void exclude(int64_t r, RowKind why) {
    kind[r] = why;
    any_wild |= why == RowKind::wild;
    norm[r] = std::numeric_limits<float>::infinity();
    scale[r] = 0;
    start[r] = 0;
    std::fill_n(row(r), row_stride * PackedData::unit_bytes, char{0});
  }

  // Packs a finite row that is within `prior_error` of the one it stands for.
  void pack(int64_t r, const float* values, const Stage& stage, float prior_error = 0) {
    const PackedData& packed = stage.packed;
    PackedRow info =
        stage.filter.pack_row(values, packed.centre(), packed.scale, packed.columns, units, row(r));
    info.error = round_up(double{info.error} + prior_error);
    if (info.reach <= largest_row_reach) {
      include(r, info);
    } else {
      exclude(r, RowKind::wild);
    }
  }

  void include(int64_t r, const PackedRow& info) {
    kind[r] = RowKind::usual;
    norm[r] = static_cast<float>(info.norm);
    scale[r] = info.scale;
    start[r] = info.start;
    error[r] = info.error;
    reach[r] = info.reach;
    largest_error = std::max<double>(largest_error, info.error);
    largest_reach = std::max<double>(largest_reach, info.reach);
  }
};

}  // namespace naign::cpu
