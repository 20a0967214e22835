// The search on CUDA devices: what the framework's side calls. All pointers are the device's; every
// function only queues work on the stream and returns a cudaError_t, 0 for success. Nothing waits
// for the device, so that calls can be captured in a graph.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/matrix.h"
#include "imle_knn/cuda/plan.h"
#include "imle_knn/imle_knn.h"

namespace naign::cuda {

// A search over batches of equal size.
struct Search {
  Matrix data;  // of the first batch
  Matrix pool;
  int64_t batches;
  int64_t data_batch_stride;  // elements
  int64_t pool_batch_stride;
  int64_t k;
  double reject_below;
  Method method = Method::automatic;
  int64_t capacity = 0;  // candidates a data row, at most; 0: what suits the sizes

  SearchSize size() const {
    return {batches, data.rows, pool.rows, data.columns, k, reject_below > 0};
  }
};

// The current device.
Device current_device();

// Queue what a plan for these sizes says, in a workspace of its bytes().
int launch(const SearchPlan& plan, const Search& search, float* distances, int64_t* indices,
           void* workspace, void* stream);
int launch(const UpdatePlan& plan, const Matrix& data, const void* packed, const PoolRange& pool,
           const Neighbours& result, void* workspace, void* stream);

// One call, from inputs to outputs: distances (batches, rows, k) float32, indices int64. The plan
// is that for the current device.
size_t search_bytes(const Search& search);
int search(const Search& search, float* distances, int64_t* indices, void* workspace, void* stream);

// The same piece by piece. Data packed once for any number of pools; `sample` decides speed only.
// No bytes where updates would not filter whatever the pool.
size_t packed_bytes(int64_t rows, int64_t columns);
int pack_data(const Matrix& data, const Matrix& sample, void* packed, void* stream);

// Takes more pool rows into the running result; rows_seen pool rows are in it already.
size_t update_bytes(const Matrix& data, const PoolRange& pool, int64_t k, int64_t rows_seen);
int update(const Matrix& data, const void* packed, const PoolRange& pool, const Neighbours& result,
           int64_t rows_seen, void* workspace, void* stream);

}  // namespace naign::cuda
