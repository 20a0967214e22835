// The running neighbours of a streaming search on CUDA devices: their beginning and their end. As
// in search.h, pointers are the device's, and a function only queues work and returns a
// cudaError_t.
#pragma once

#include "common/matrix.h"
#include "imle_knn/imle_knn.h"

namespace naign::cuda {

int clear(const Neighbours& result, void* stream);

// Distances as float32; NaN where the data row itself holds NaN or Inf.
int finish(const Matrix& data, const Neighbours& result, float* distances, void* stream);

}  // namespace naign::cuda
