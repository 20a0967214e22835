// The inner loops of the search: one table an instruction set, one source file a table.
#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "common/matrix.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// How a search stores values while it discards pairs, from the cheapest to the tightest. They
// differ in speed only: every pair that any of them keeps is compared exactly.
enum class Filter : int32_t { int8, int16, float32 };
constexpr int64_t filter_count = 3;

// Scores of a few pool rows against the queries of one panel. A score approximates
// |y|^2 - 2 <x, y>; rows and queries are packed, in units of four bytes.
struct Tile {
  const char* panel;         // packed queries, [unit][lane]
  const char* rows;          // packed pool rows; row r starts r * row_stride units on
  int64_t row_stride;        // in units
  int64_t units;             // length of this chunk of the rows
  bool first;                // start the sums, or go on from `sums`
  bool last;                 // finish the scores, or leave the sums in `sums`
  char* sums;                // [row][lane], four bytes each, between the chunks of long rows
  const float* row_norm;     // |y|^2; +inf excludes the row
  const int32_t* row_start;  // integers: where the sums start; undoes the bias of the queries
  const float* row_scale;    // integers: the scale of y
  const float* lane_scale;   // integers: twice the scale of x
  const float* threshold;    // [lane]: the scores that matter are at most this
  float* scores;             // [row][lane]; written if any score matters
};

struct Columns {
  int64_t first;
  int64_t last;
};

// A few data rows against pool rows, in float32 and without packing: sums of squared differences.
struct Differences {
  const float* const* data;
  int64_t data_rows;  // at most Kernels::difference_rows
  const float* pool;
  int64_t pool_rows;
  int64_t pool_stride;
  int64_t columns;
  float* sums;          // [data row][pool row]
  int64_t sums_stride;  // at least pool_rows, rounded up to a multiple of 16
  float* carried;       // carried_numbers(pool_rows, columns) of scratch
};

// Long rows are summed in pieces of this many columns, which the nearest cache holds.
constexpr int64_t difference_columns = 1024;

constexpr int64_t carried_numbers(int64_t pool_rows, int64_t columns) {
  // Every group of pool rows has 16 sums of 16 numbers at most, and at least 4 rows.
  return columns > difference_columns ? (pool_rows + 3) / 4 * 256 : 0;
}

constexpr int64_t lane_rows = 16;

// The nearest pool row of each of lane_rows data rows by exact distances, for few columns.
struct LaneRows {
  const double* data;  // [column][lane]
  const double* pool;  // [row][column]
  int64_t pool_rows;
  int64_t columns;
  double reject_below;
  int64_t first_index;  // of the first pool row
  double* distances;    // [lane], the running result
  int64_t* indices;
};

constexpr int64_t lane_sum_rows = 32;

// The two smallest float32 sums of squared differences of each of lane_sum_rows data rows.
struct LaneSums {
  const float* data;  // [column][lane]
  const float* pool;
  int64_t pool_rows;
  int64_t pool_stride;
  int64_t columns;
  int32_t first;    // the number of the first pool row
  float* smallest;  // [lane], the running result
  float* second;
  int32_t* index;  // of the smallest
};

constexpr int64_t product_columns = 64;

// Adds left times right to out, rows of product_columns numbers.
struct Products {
  const float* left;  // [row][depth]
  int64_t row_stride;
  int64_t depth_stride;
  int64_t rows;
  int64_t depth;
  const float* right;  // [depth][column]
  float* out;          // [row][column]
};

// What packing finds out about a row v; v~ is what the packed row stands for.
struct PackedRow {
  double norm;               // |v~|^2
  float quantisation_error;  // at least |v - v~|
  float norm_bound;          // at least |v~|
  float scale;               // integers: v~ is this times them
  int32_t start;             // integers: minus the queries' bias times the sum of the row
};

struct FilterKernel {
  int64_t elements_per_unit;
  int64_t largest_columns;  // beyond, integer sums might overflow
  // A bit for each lane where some score is at most the threshold. nullptr where the processor
  // lacks it.
  uint64_t (*tile)(const Tile&);
  // Packs values * scale - centre into `units` units, zeros at the end.
  PackedRow (*pack_query)(const float* values, const float* centre, float scale, int64_t columns,
                          int64_t units, char* packed);
  PackedRow (*pack_row)(const float* values, const float* centre, float scale, int64_t columns,
                        int64_t units, char* packed);
};

struct Kernels {
  int64_t tile_rows;
  int64_t lanes;
  FilterKernel filters[filter_count];
  // The distance that decides, as naign_ext/ops/reference.py defines it.
  double (*distance)(const float* x, const float* y, int64_t columns);
  // The same in float32, 64 partial sums; at least 16 columns.
  float (*approximate_distance)(const float* x, const float* y, int64_t columns);
  // The same for several pairs at once and any number of columns: difference_lanes partial sums.
  int64_t difference_rows;
  int64_t difference_lanes;
  void (*sum_differences)(const Differences&);
  void (*nearest_by_lanes)(const LaneRows&);
  void (*nearest_by_sums)(const LaneSums&);
  void (*add_products)(const Products&);
  // The least value that is greater than `above`, +inf where there is none. Values are readable up
  // to a multiple of 16, here and below.
  float (*least_above)(const float* values, int64_t count, float above);
  // Positions of the values that are at most `limit`, infinite or NaN, ascending; their number.
  int64_t (*find_at_most)(const float* values, int64_t count, float limit, int32_t* positions);
  // Half precision or strided to contiguous float32, exactly.
  void (*widen)(const void* row, Dtype dtype, int64_t column_stride, int64_t columns, float* out);
  bool (*all_finite)(const float* values, int64_t columns);
  float (*largest_magnitude)(const float* values, const float* centre, int64_t columns);

  const FilterKernel& filter(Filter which) const { return filters[static_cast<int>(which)]; }
};

const Kernels& kernels(Isa isa);
template <Isa>
const Kernels& kernels();
template <>
const Kernels& kernels<Isa::portable>();
template <>
const Kernels& kernels<Isa::avx2>();
template <>
const Kernels& kernels<Isa::avx512>();

#if defined(__x86_64__)
// The integer tiles of processors with 8-bit and 16-bit dot products.
uint64_t tile_int8_vnni(const Tile& tile);
uint64_t tile_int16_vnni(const Tile& tile);
#endif

}  // namespace naign::cpu
