// The CUDA search on the CPU, for tests: the same steps, limits and arithmetic in plain C++, and
// models of the matrix instructions written from the PTX ISA.
#pragma once

#include <cstdint>

#include "imle_knn/cuda/plan.h"
#include "imle_knn/imle_knn.h"

namespace naign::emulation {

// How often each way was taken, in data rows.
struct Passes {
  int64_t candidates;  // kept by the filter
  int64_t overflow;    // rows whose list was too short, in the first filter
  int64_t exact;       // rows compared exactly with a whole chunk
  int64_t wild;        // pool rows compared exactly with all data rows
};

Passes search(const Matrix& data, const PoolRange& pool, const Neighbours& result,
              const cuda::FilterLimits& plan, int64_t tile_columns);

// Products of a (rows, bytes) and b (columns, bytes) as the filter kernels take them from packed
// slabs, sums (rows, columns); whole panels.
void wgmma_products(const int8_t* a, const int8_t* b, int64_t rows, int64_t columns, int64_t bytes,
                    int32_t* sums);
void mma_products(const int8_t* a, const int8_t* b, int64_t rows, int64_t columns, int64_t bytes,
                  int32_t* sums);

}  // namespace naign::emulation
