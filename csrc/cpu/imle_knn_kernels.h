// The inner loops of the search: one table an instruction set, one source file a table.
#pragma once

#include <cstdint>

#include "cpu_features.h"
#include "naign/imle_knn.h"
#include "naign/matrix.h"

namespace naign::cpu {

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
  const float* row_scale;    // integers: the value of one unit of y
  const float* lane_scale;   // integers: twice the value of one unit of x
  const float* threshold;    // [lane]: the scores that matter are at most this
  float* scores;             // [row][lane]; written if any score matters
};

// What packing finds out about a row v; v~ is what the packed row stands for.
struct PackedRow {
  double norm;    // |v~|^2
  float error;    // at least |v - v~|
  float reach;    // at least |v~|
  float scale;    // integers: the value of one unit
  int32_t start;  // integers: minus the queries' bias times the sum of the row
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
  // Half precision or strided to contiguous float32, exactly.
  void (*widen)(const void* row, Dtype dtype, int64_t column_stride, int64_t columns, float* out);
  bool (*all_finite)(const float* values, int64_t columns);
  float (*largest_magnitude)(const float* values, const float* centre, int64_t columns);

  const FilterKernel& filter(Filter which) const { return filters[static_cast<int>(which)]; }
};

const Kernels& kernels(Isa isa);
const Kernels& kernels_portable();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
// The integer tiles of processors with 8-bit and 16-bit dot products.
uint64_t tile_int8_vnni(const Tile& tile);
uint64_t tile_int16_vnni(const Tile& tile);
#endif

}  // namespace naign::cpu
