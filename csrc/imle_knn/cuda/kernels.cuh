// The kernels of the search and what they are given. Rows of the pool are numbered within their
// chunk, data rows within their group, slots within a list of data rows.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/matrix.h"
#include "imle_knn/cuda/packing.h"
#include "imle_knn/cuda/plan.h"
#include "imle_knn/imle_knn.h"

namespace naign::cuda {

// Blocks of a launch, at most; fewer of one that may have nothing to do, which should end soon.
constexpr int64_t most_blocks = 1 << 16;
constexpr int64_t most_optional_blocks = 1024;

// Data rows named by a list that a kernel wrote, or all rows where there is none.
struct Selection {
  const int32_t* ids;    // nullptr: row i is i
  const int32_t* count;  // on the device; nullptr: all
  int32_t rows;          // at most

  __device__ int active() const { return count != nullptr ? min(*count, rows) : rows; }
  __device__ int row(int slot) const { return ids != nullptr ? ids[slot] : slot; }
};

// ------------------------------------------------------------------------------------------------

struct PackProblem {
  Matrix rows;
  Selection selection;
  int64_t padded_rows;  // rows to write, the last ones zero
  const float* centre;
  const Frame* frame;
  int8_t* values;
  int32_t slabs;   // a digit
  int32_t digits;  // 1 or 2
  // Data rows:
  PackedQuery* queries;  // nullptr: these are pool rows
  // Pool rows:
  PoolColumn* columns;
  RowBound* bounds;
  RowBound* panels;             // largest of every panel; zero before
  int32_t* out_of_range;        // rows to compare exactly with all data rows
  int32_t* out_of_range_count;  // zero before
  const int32_t* gate;          // nothing is done while this is zero; nullptr: always
  bool skips_repeats;           // rows equal to the row before them take no part
};

void pack_rows(const PackProblem& problem, cudaStream_t stream);

// Chooses centre and scale from a sample of both sides; `largest` is scratch, 2 * frame_samples.
void choose_frame(const Matrix& data, const Matrix& pool, float* centre, Frame* frame,
                  float* largest, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------

struct FilterProblem {
  const int8_t* query_values;
  const PackedQuery* queries;  // by slot
  const int32_t* ids;          // as in Selection
  const int32_t* count;
  int32_t rows;
  const int8_t* pool_values;
  const PoolColumn* columns;
  const RowBound* panels;
  int32_t pool_rows;
  int32_t slabs;       // a digit
  int32_t last_steps;  // matrix instructions of the last slab
  int32_t digits;
  const Frame* frame;
  Bounds bounds;
  double reject_below;
  double* bound;  // by row: no admissible neighbour is farther
  bool tightens;  // lower it, for k = 1
  uint32_t* counts;
  Candidate* lists;
  int32_t capacity;
  float* groups;  // not nullptr: only collect the smallest scores
  int32_t groups_per_row;
};

// pool_values and columns are padded to a multiple of widest_tile.
void run_filter_sm80(const FilterProblem& problem, int multiprocessors, cudaStream_t stream);
void run_filter_sm90(const FilterProblem& problem, int multiprocessors, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------

struct SeedProblem {
  const PackedQuery* queries;
  const RowBound* panels;
  int32_t panel_count;
  const float* groups;
  int32_t groups_per_row;
  int32_t rows;
  int32_t k;
  const Frame* frame;
  Bounds bounds;
  double* bound;
};

// The k-th smallest of the collected scores bounds the k-th distance.
void seed_bounds(const SeedProblem& problem, cudaStream_t stream);

struct RerankProblem {
  Matrix data;
  Matrix pool;  // the chunk
  int64_t first_index;
  double reject_below;
  Neighbours result;  // of the group
  Selection selection;
  const PackedQuery* queries;  // by slot
  const RowBound* row_bounds;
  const int32_t* out_of_range;
  const int32_t* out_of_range_count;
  const Frame* frame;
  Bounds bounds;
  double* bound;
  uint32_t* counts;  // zero afterwards
  const Candidate* lists;
  int32_t capacity;
  // Where rows go whose list overflowed, and data rows out of range.
  int32_t* overflow;
  int32_t* overflow_count;
  int32_t* exact;
  int32_t* exact_count;
};

void rerank(const RerankProblem& problem, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------

// Every pair compared exactly; a block takes a data row and a segment of the pool.
struct ExactProblem {
  Matrix data;
  Matrix pool;
  int64_t data_batch_stride;  // elements
  int64_t pool_batch_stride;
  int32_t batches;
  int64_t first_index;
  double reject_below;
  Neighbours result;  // batches one after the other
  Selection selection;
  int64_t segment_rows;
  bool fresh;      // the result is not initialised; one segment only
  double* bound;   // nullptr: the result's own
  int32_t* locks;  // one a row, zero; nullptr with a single segment
  float* rounded;  // not nullptr: also write the public distances; one segment only
};

void compare_exactly(const ExactProblem& problem, int multiprocessors, cudaStream_t stream);

// Few columns: a thread takes a data row and a share of the pool.
struct ColumnsProblem {
  Matrix data;
  Matrix pool;
  int64_t first_index;
  double reject_below;
  Neighbours result;
  int32_t shares;
  Neighbours partial;  // shares one after the other; unused with one share
};

void compare_few_columns(const ColumnsProblem& problem, cudaStream_t stream);

// ------------------------------------------------------------------------------------------------

void clear_neighbours(const Neighbours& result, cudaStream_t stream);
void worst_of(const Neighbours& result, double* bound, cudaStream_t stream);
void round_distances(const Matrix& data, const Neighbours& result, float* distances,
                     cudaStream_t stream);

}  // namespace naign::cuda
