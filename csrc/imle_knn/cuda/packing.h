// How the CUDA search stores rows for its filter, and what it does with a pair's integer sum. All
// of it runs on the CPU as well, where the tests compare it with the contract.
#pragma once

#include <cstdint>

#include "common/host_device.h"
#include "imle_knn/bounds.h"

namespace naign::cuda {

// Packed rows are cut into panels of 128 rows and slabs of 128 bytes; a panel's slab is 16 KiB in
// one piece, laid out as the tensor cores read shared memory (128-byte swizzle): copying it is all
// that a kernel has to do.
constexpr int64_t panel_rows = 128;
constexpr int64_t slab_bytes = 128;
constexpr int64_t panel_slab_bytes = panel_rows * slab_bytes;
// Bytes of a row that one matrix instruction takes.
constexpr int64_t step_bytes = 32;

NAIGN_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where byte `byte` < 128 of row `row` < 128 lies in a panel's slab: the 16-byte pieces of eight
// rows are permuted so that any eight rows' pieces of one column lie in different banks.
NAIGN_HOST_DEVICE constexpr int64_t swizzled(int64_t row, int64_t byte) {
  return row * slab_bytes + (byte ^ ((row & 7) << 4));
}

NAIGN_HOST_DEVICE constexpr int64_t slabs_of(int64_t columns) {
  return ceil_div(columns, slab_bytes);
}
// A row of two digits has the slabs of its high digits first, then those of the low ones.
NAIGN_HOST_DEVICE constexpr int64_t packed_offset(int64_t row, int64_t byte, int64_t row_slabs) {
  return ((row / panel_rows) * row_slabs + byte / slab_bytes) * panel_slab_bytes +
         swizzled(row % panel_rows, byte % slab_bytes);
}

// The shared-memory operand of a warpgroup's matrix instruction (PTX ISA, "matrix descriptor"):
// K-major, 128-byte swizzle, groups of eight rows 1024 bytes apart. `address` is a multiple of 1024
// plus the byte of the row at which the step begins.
NAIGN_HOST_DEVICE constexpr uint64_t matrix_descriptor(uint32_t address) {
  constexpr uint64_t leading_offset = 1;  // not used by swizzled layouts
  constexpr uint64_t stride_offset = 8 * slab_bytes >> 4;
  constexpr uint64_t swizzle_128_bytes = 1;
  return (address & 0x3ffffu) >> 4 | leading_offset << 16 | stride_offset << 32 |
         swizzle_128_bytes << 62;
}

// Accumulators of the matrix instructions (PTX ISA, m64nNk32 and m16n8k32): number i of a lane lies
// in this row of the warp's 16, and this column.
NAIGN_HOST_DEVICE constexpr int fragment_row(int lane, int i) { return lane / 4 + (i / 2 % 2) * 8; }
NAIGN_HOST_DEVICE constexpr int fragment_column(int lane, int i) {
  return i / 4 * 8 + lane % 4 * 2 + i % 2;
}

// ldmatrix: the byte of a slab from which a lane reads 16 for the instruction m16n8k32, so that
// data rows first ... first + 15 arrive as its operand a, and pool rows first ... first + 15 as
// operand b of two instructions. One step is 32 bytes of every row.
NAIGN_HOST_DEVICE constexpr int64_t lane_query_offset(int first, int step, int lane) {
  return swizzled(first + lane % 16, step * step_bytes + lane / 16 * 16);
}
NAIGN_HOST_DEVICE constexpr int64_t lane_pool_offset(int first, int step, int lane) {
  return swizzled(first + lane / 16 * 8 + lane % 8, step * step_bytes + lane / 8 % 2 * 16);
}

// The loop over the slabs of a tile: the products of the digits in turn, hh, hl, lh, ll.
template <int digits>
struct Slabs {
  int slabs;  // a digit

  NAIGN_HOST_DEVICE constexpr int count() const { return digits == 1 ? slabs : 4 * slabs; }
  NAIGN_HOST_DEVICE constexpr int query(int i) const {
    if (digits == 1) return i;
    return i % slabs + (i >= 2 * slabs ? slabs : 0);
  }
  NAIGN_HOST_DEVICE constexpr int pool(int i) const {
    if (digits == 1) return i;
    return i % slabs + (i / slabs % 2 == 1 ? slabs : 0);
  }
  // The sum so far counts 128 times as much as what follows.
  NAIGN_HOST_DEVICE constexpr bool shifts_before(int i) const {
    return digits == 2 && (i == slabs || i == 3 * slabs);
  }
  NAIGN_HOST_DEVICE constexpr bool last_of_row(int i) const {
    return (digits == 1 ? i : i % slabs) == slabs - 1;
  }
};

// Tiles in the order in which they are taken: a few panels of data rows against all pool rows, so
// that blocks at work together read few different rows.
struct Tiles {
  static constexpr int64_t band = 16;
  int64_t row_tiles;
  int64_t column_tiles;

  NAIGN_HOST_DEVICE constexpr int64_t count() const { return row_tiles * column_tiles; }
  NAIGN_HOST_DEVICE constexpr void at(int64_t tile, int64_t& row_tile, int64_t& column_tile) const {
    const int64_t first = tile / (band * column_tiles) * band;
    const int64_t height = row_tiles - first < band ? row_tiles - first : band;
    const int64_t within = tile - first * column_tiles;
    row_tile = first + within % height;
    column_tile = within / height;
  }
};

// Rows of one digit hold integers up to 127, rows of two hold 128 high + low, with |high| <= 127
// and -64 <= low < 64. A product of two-digit rows is built from the high digits on,
// 128 (128 hh + (hl + lh)) + ll; the bound of the norm keeps every partial sum below 2^31.
NAIGN_HOST_DEVICE constexpr Levels levels_of(int digits) {
  return digits == 1 ? Levels{127, 1e9} : Levels{127 * 128, 40000};
}
NAIGN_HOST_DEVICE constexpr int high_digit(int value) { return (value + 64) >> 7; }
NAIGN_HOST_DEVICE constexpr int low_digit(int value) { return value - 128 * high_digit(value); }

// What multiplies values, and what is taken away, before a search packs them; powers of two.
struct Frame {
  float scale;
  double squared;  // scaled squared distance = squared * squared distance
};

// One value's integer and what rounding leaves of it: lemma 4.
struct Quantised {
  int32_t integer;
  float quantisation_error;
};

NAIGN_HOST_DEVICE inline Quantised quantise(float value, float scale, float inverse) {
  const float shifted = value * inverse + integer_shift;
  const float rounded = shifted - integer_shift;
  return {static_cast<int32_t>(rounded), value - rounded * scale};
}

NAIGN_HOST_DEVICE inline float centred(float value, float scale, float centre) {
  return value * scale - centre;
}

// What a row's sums, taken while it was read and packed, say about the row.
struct RowSums {
  bool finite;
  Extent extent;
  float squared_errors;
  int64_t squared_integers;
  float scale;
};

struct PackedRowInfo {
  double norm;
  float quantisation_error;
  float norm_bound;
  float scale;
  RowKind kind;
};

NAIGN_HOST_DEVICE inline PackedRowInfo packed_row_info(const RowSums& sums, int64_t columns) {
  if (!sums.finite) return {0, 0, 0, 0, RowKind::excluded};
  const auto squared = static_cast<double>(sums.squared_integers);
  const float norm_bound = integer_norm_bound(squared, sums.scale, sums.extent);
  if (!(norm_bound <= largest_row_norm_bound)) return {0, 0, 0, 0, RowKind::out_of_range};
  return {squared * sums.scale * sums.scale,
          integer_quantisation_error(sums.squared_errors, sums.extent, columns), norm_bound,
          sums.scale, RowKind::usual};
}

// A packed data row.
struct PackedQuery {
  Query query;
  float scale;

  NAIGN_HOST_DEVICE static PackedQuery of(const PackedRowInfo& info) {
    return {{info.norm, info.quantisation_error, info.norm_bound, info.kind}, info.scale};
  }
};

// What the filter reads of a packed pool row; a norm of +inf keeps the row out.
struct PoolColumn {
  float norm;
  float scale;

  NAIGN_HOST_DEVICE static PoolColumn of(const PackedRowInfo& info) {
    return info.kind == RowKind::usual ? PoolColumn{static_cast<float>(info.norm), info.scale}
                                       : PoolColumn{float_infinity, 0};
  }
};

// e and n of a row, or the largest of several rows.
struct RowBound {
  float quantisation_error;
  float norm_bound;
};

// The largest of the panels that hold pool rows first, ..., first + count - 1.
NAIGN_HOST_DEVICE inline RowBound bound_of_panels(const RowBound* panels, int64_t first,
                                                  int64_t count) {
  RowBound all = panels[first / panel_rows];
  for (int64_t panel = first / panel_rows + 1; panel * panel_rows < first + count; ++panel) {
    all.quantisation_error = fmaxf(all.quantisation_error, panels[panel].quantisation_error);
    all.norm_bound = fmaxf(all.norm_bound, panels[panel].norm_bound);
  }
  return all;
}

struct Candidate {
  int32_t row;  // of the chunk
  float score;
};

// |y~|^2 - 2 <x~, y~>, rounded: lemma 5. `double_scale` is twice the query's.
NAIGN_HOST_DEVICE inline float score_of(int32_t sum, float double_scale, const PoolColumn& column) {
  return fmaf(-(double_scale * column.scale), static_cast<float>(sum), column.norm);
}

// The scores at most this may belong to a row at a squared distance of at most `bound`. Finite: the
// norm of a row that is kept out is +inf, and no score of another is as large.
NAIGN_HOST_DEVICE inline float score_limit(const Bounds& bounds, const Query& query, double bound,
                                           const RowBound& rows, const Frame& frame) {
  if (query.kind != RowKind::usual) return -float_infinity;
  const float limit = round_up(
      bounds.score_beyond(query, bound * frame.squared, rows.quantisation_error, rows.norm_bound));
  return limit < largest_float ? limit : largest_float;
}

// Scores below this belong to pairs that are certainly rejected.
NAIGN_HOST_DEVICE inline double rejected_limit(const Bounds& bounds, const Query& query,
                                               double reject_below, const RowBound& rows,
                                               const Frame& frame) {
  if (!(reject_below > 0)) return -infinity;
  return bounds.score_within(query, reject_below * frame.squared, rows.quantisation_error,
                             rows.norm_bound);
}

// Scores above this belong to pairs that are certainly not rejected.
NAIGN_HOST_DEVICE inline float admissible_limit(const Bounds& bounds, const Query& query,
                                                double reject_below, const RowBound& rows,
                                                const Frame& frame) {
  if (!(reject_below > 0)) return -float_infinity;
  return score_limit(bounds, query, reject_below, rows, frame);
}

// At least the squared distance of a row with this score.
NAIGN_HOST_DEVICE inline double distance_above(const Bounds& bounds, const Query& query,
                                               float score, const RowBound& rows,
                                               const Frame& frame) {
  return bounds.upper(query, score, rows.quantisation_error, rows.norm_bound) / frame.squared;
}

// True only if a row with this score is farther than `bound`.
NAIGN_HOST_DEVICE inline bool certainly_farther(const Bounds& bounds, const Query& query,
                                                float score, double bound, const RowBound& rows,
                                                const Frame& frame) {
  const double lower = bounds.lower(query, score, rows.quantisation_error, rows.norm_bound);
  return lower > bound * frame.squared * (1 + 2 * bounds.slack);
}

}  // namespace naign::cuda
