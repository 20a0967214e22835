// Exact k nearest pool rows of every data row: the contract shared by all devices.
//
// Distances are compared as naign_ext/ops/reference.py defines them (float64, 32 strided partial
// sums, no fused operations), ties go to the lowest index. A pool row with NaN or Inf never
// matches; a data row with NaN or Inf matches nothing.
#pragma once

#include <cstdint>
#include <string>

#include "common/matrix.h"
#include "common/parallel.h"

namespace naign {

// Running result, row-major (rows, k): squared distances ascending (+inf where absent) and pool
// indices (-1 where absent). Initialise with clear() before the first pool rows.
struct Neighbours {
  double* distances;
  int64_t* indices;
  int64_t rows;
  int64_t k;

  void clear() const;
};

struct PoolRange {
  Matrix rows;
  int64_t first_index;  // the index of row 0 in the whole pool
  double reject_below;  // squared distances below this are inadmissible; -inf rejects nothing
};

namespace cpu {

// A search from inputs to outputs, over batches of equal size.
struct Search {
  Batches data;
  Batches pool;
  int64_t k;
  double reject_below;
};

// distances (batches, rows, k) float32, indices int64. Chooses the method.
void search(const Search& problem, float* distances, int64_t* indices, const Parallel& parallel);

// Distances as float32; NaN where the data row itself holds NaN or Inf.
void finish(const Matrix& data, const Neighbours& result, float* distances);

// Search this way from now on, where it applies: "packed", "projected" (packed, with a projection
// as soon as a streaming search can have one), or without packing by "tree" (few columns),
// "differences", "lane_sums" (k = 1, no rejection) or "lanes" (k = 1); "" for the fastest. For
// tests and measurements: the answer is the same. Throws std::invalid_argument for another name.
void force_method(const std::string& name);

}  // namespace cpu
}  // namespace naign
