// The search by the filter, as search.cu calls it.
#pragma once

#include <cuda_runtime.h>

#include "common/matrix.h"
#include "imle_knn/cuda/plan.h"
#include "imle_knn/imle_knn.h"

namespace naign::cuda {

// Data rows packed into a buffer of packed_layout(); centre and scale come from them and a sample
// of a pool.
void pack_queries(const PackedLayout& layout, const Matrix& data, const Matrix& sample,
                  void* packed, cudaStream_t stream);

// Takes pool rows into the running result. `packed`: by pack_queries, for the same data.
void search_by_filter(const FilterPlan& plan, const Matrix& data, const PackedLayout& layout,
                      void* packed, const PoolRange& pool, const Neighbours& result,
                      void* workspace, int multiprocessors, cudaStream_t stream);

}  // namespace naign::cuda
