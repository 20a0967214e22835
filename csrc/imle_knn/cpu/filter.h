// The filter of a search: its bounds, the data it works on, and pool rows packed for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/packed_data.h"

namespace naign::cpu {

// A float32 sum of squared differences is several times cheaper than the exact distance, and nearly
// as telling: lemma 9.
class Screen {
 public:
  Screen(const Kernels& kernels, int64_t columns)
      : kernels_(kernels), columns_(columns), bound_(ScreenBound::of(columns)) {}

  // True only if the exact distance exceeds bound.
  bool farther(const float* x, const float* y, double bound) const {
    if (columns_ < 16) return false;
    return bound_.farther(kernels_.approximate_distance(x, y, columns_), bound);
  }

 private:
  const Kernels& kernels_;
  int64_t columns_;
  ScreenBound bound_;
};

inline Bounds bounds_of(const PackedData& packed, int64_t distance_columns) {
  return packed.filter == Filter::float32 ? Bounds::of_float32(packed.columns, distance_columns)
                                          : Bounds::of_integers(packed.columns, distance_columns);
}

// What a filter needs of the data: the packing that was prepared, a tighter one made on the way, or
// a projection, whose distances bound the true ones from below only.
struct Stage {
  const PackedData& packed;
  const FilterKernel& filter;
  Bounds bounds;
  const PackedData* axes;

  explicit Stage(const PackedData& prepared) : Stage(prepared, nullptr, prepared.columns) {}
  Stage(const PackedData& prepared, const PackedData* projected_on, int64_t distance_columns)
      : packed(prepared),
        filter(kernels(prepared.isa).filter(prepared.filter)),
        bounds(bounds_of(prepared, distance_columns)),
        axes(projected_on) {}

  bool bounds_from_above() const { return axes == nullptr; }
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
  std::vector<float> quantisation_error;
  std::vector<float> norm_bound;
  std::vector<RowKind> kind;
  double largest_quantisation_error = 0;
  double largest_norm_bound = 0;
  bool any_out_of_range = false;

  Block(int64_t rows, int64_t row_units)
      : units(row_units),
        row_stride((row_units + 15) / 16 * 16 + 16),
        values(aligned_array<char>(rows * row_stride * PackedData::unit_bytes)),
        norm(aligned_array<float>(rows)),
        scale(aligned_array<float>(rows)),
        start(aligned_array<int32_t>(rows)),
        quantisation_error(rows),
        norm_bound(rows),
        kind(rows) {}

  char* row(int64_t r) const { return values.get() + r * row_stride * PackedData::unit_bytes; }

  void clear(int64_t new_first, int64_t new_count) {
    first = new_first;
    count = new_count;
    largest_quantisation_error = largest_norm_bound = 0;
    any_out_of_range = false;
  }

  void exclude(int64_t r, RowKind why) {
    kind[r] = why;
    any_out_of_range |= why == RowKind::out_of_range;
    norm[r] = float_infinity;
    scale[r] = 0;
    start[r] = 0;
    std::fill_n(row(r), row_stride * PackedData::unit_bytes, char{0});
  }

  // Packs a finite row that is within `prior_error` of the one it stands for.
  void pack(int64_t r, const float* values, const Stage& stage, float prior_error = 0) {
    const PackedData& packed = stage.packed;
    PackedRow info = stage.filter.pack_row(values, packed.centre.get(), packed.scale,
                                           packed.columns, units, row(r));
    info.quantisation_error = round_up(double{info.quantisation_error} + prior_error);
    if (info.norm_bound <= largest_row_norm_bound) {
      include(r, info);
    } else {
      exclude(r, RowKind::out_of_range);
    }
  }

  void include(int64_t r, const PackedRow& info) {
    kind[r] = RowKind::usual;
    norm[r] = static_cast<float>(info.norm);
    scale[r] = info.scale;
    start[r] = info.start;
    quantisation_error[r] = info.quantisation_error;
    norm_bound[r] = info.norm_bound;
    largest_quantisation_error =
        std::max<double>(largest_quantisation_error, info.quantisation_error);
    largest_norm_bound = std::max<double>(largest_norm_bound, info.norm_bound);
  }
};

}  // namespace naign::cpu
