// The inner loops of the search: one table an instruction set, one source file a table.
#pragma once

#include <cstdint>

#include "cpu_features.h"
#include "naign/matrix.h"

namespace naign::cpu {

// Scores of a few pool rows against the queries of one panel. A score approximates
// |y|^2 - 2 <x, y>; rows and queries are packed and scaled.
struct Tile {
  const void* panel;         // packed queries, [unit][lane]
  const void* rows;          // packed pool rows; row r starts r * row_stride units on
  int64_t row_stride;        // in units of four bytes
  int64_t units;             // length of this chunk of the rows
  bool first;                // start the sums, or go on from `sums`
  bool last;                 // finish the scores, or leave the sums in `sums`
  void* sums;                // [row][lane], between the chunks of long rows
  const float* row_norm;     // |y|^2; +inf excludes the row
  const int32_t* row_start;  // where the integer sums start: undoes the bias of unsigned queries
  const float* row_scale;    // integer filters: units of y
  const float* lane_scale;   // integer filters: twice the units of x
  const float* threshold;    // [lane]: the scores that matter are at most this
  float* scores;             // [row][lane]; written if any score matters
};

// What packing finds out about a row.
struct PackedRow {
  float norm;   // |v|^2 of the packed values as the sum of the filter has it
  float error;  // at least the distance of the packed values from the exact ones
  float reach;  // at least |v| of the packed values
  float scale;  // integer filters: the value of one unit
  int32_t sum;  // integer filters: sum of the units
};

// One filter of one instruction set: how rows are packed, and the tile.
struct FilterKernel {
  int64_t elements_per_unit;  // numbers in four bytes
  // True if any score is at most its lane's threshold.
  bool (*tile)(const Tile&);
  // Packs (v - centre) of a row of scaled values; writes `units` units, zeros at the end.
  PackedRow (*pack)(const float* values, const float* centre, float scale, int64_t columns,
                    int64_t units, bool query, void* packed);
};

struct Kernels {
  int64_t tile_rows;
  int64_t lanes;
  FilterKernel float32;
  FilterKernel int8;  // tile == nullptr where the processor lacks it
  // The distance that decides, as naign_ext/ops/reference.py defines it.
  double (*distance)(const float* x, const float* y, int64_t columns);
  // Half precision or strided to contiguous float32, exactly.
  void (*widen)(const void* row, Dtype dtype, int64_t column_stride, int64_t columns, float* out);
  bool (*all_finite)(const float* values, int64_t columns);
  float (*largest_magnitude)(const float* values, const float* centre, int64_t columns);
};

const Kernels& kernels(Isa isa);
const Kernels& kernels_portable();
#if defined(__x86_64__)
const Kernels& kernels_avx2();
const Kernels& kernels_avx512();
#endif

}  // namespace naign::cpu
