// Exact k nearest pool rows of every data row: the contract shared by all devices.
//
// Distances are compared as naign_ext/ops/reference.py defines them (float64, 32 strided partial
// sums, no fused operations), ties go to the lowest index. A pool row with NaN or Inf never
// matches; a data row with NaN or Inf matches nothing.
#pragma once

#include <cstddef>
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

// How a search stores values while it discards pairs, from the cheapest to the tightest. They
// differ in speed only: every pair that any of them keeps is compared exactly.
enum class Filter : int32_t { int8, int16, float32 };

bool has_filter(Filter filter);

// The cheapest filter that this processor has for rows of this length, and the next one.
Filter first_filter(int64_t columns);
Filter tighter_filter(Filter filter);

// Bytes of a buffer that pack_data fills; 64-byte alignment is the caller's duty.
size_t packed_bytes(int64_t rows, int64_t columns, Filter filter);

// Prepares data for any number of searches. `sample` is a pool from which centre and scale are
// taken; they decide speed, never the answer.
void pack_data(const Matrix& data, const Matrix& sample, Filter filter, void* packed,
               const Parallel& parallel);

// False where a pool lies so far from the centre chosen by pack_data, measured in its own spread,
// that packing again would pay, or where another instruction set was forced since.
bool packing_fits(const void* packed, const Matrix& sample);

// A projection of the data prepared by pack_data for a first, cheaper stage; optional.
struct Projection {
  const void* basis = nullptr;  // by pack_basis
  const void* data = nullptr;   // by pack_projected
};

bool can_project(int64_t columns);
size_t basis_bytes(int64_t rank, int64_t columns);
size_t projected_bytes(int64_t rows, int64_t rank);
// The rows of `basis` are the axes to project on; best are orthonormal ones.
void pack_basis(const Matrix& basis, void* buffer);
void pack_projected(const Matrix& data, const void* packed, const void* basis, void* buffer);

// What a search found out for the next one.
struct Outcome {
  Filter filter;         // the one it ended with, tighter than `packed` has if that kept too much
  bool projection_pays;  // false if the projection was given up
};

// Takes more pool rows into the running result. `packed` is pack_data's for the same data.
Outcome search(const Matrix& data, const void* packed, const Projection& projection,
               const PoolRange& pool, const Neighbours& result, const Parallel& parallel);

// What the filter knows of every pair: bounds of the squared distance, row-major (rows, pool rows),
// [0, inf] for rows it leaves alone. For tests; stores all pairs.
void filter_bounds(const void* packed, const Matrix& pool, double* lower, double* upper);

// Whether and how to search without packing, for any number of problems of one size.
struct Unpacked {
  int32_t method;  // 0 where packing is faster
  double cost;     // nanoseconds of one thread, roughly

  bool pays() const { return method > 0; }
};

Unpacked choose_unpacked(const Matrix& data, const PoolRange& pool, int64_t k);

// The same result without packing; for rows that are few or short.
void search_unpacked(const Unpacked& way, const Matrix& data, const PoolRange& pool,
                     const Neighbours& result, const Parallel& parallel);

// Search this way from now on, where it applies: "packed", or without packing by "tree" (few
// columns), "differences", "lane_sums" (k = 1, no rejection) or "lanes" (k = 1); "" for the
// fastest. For tests and measurements: the answer is the same. Throws std::invalid_argument for
// another name.
void force_method(const std::string& name);

// Distances as float32; NaN and index -1 where the data row itself holds NaN or Inf.
void finish(const Matrix& data, const Neighbours& result, float* distances);

}  // namespace cpu
}  // namespace naign
