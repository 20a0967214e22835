#include "imle_knn/cuda/running.h"

#include "imle_knn/cuda/kernels.cuh"

namespace naign::cuda {

int clear(const Neighbours& result, void* stream) {
  if (result.rows == 0) return cudaSuccess;
  clear_neighbours(result, static_cast<cudaStream_t>(stream));
  return cudaGetLastError();
}

int finish(const Matrix& data, const Neighbours& result, float* distances, void* stream) {
  if (result.rows == 0) return cudaSuccess;
  round_distances(data, result, distances, static_cast<cudaStream_t>(stream));
  return cudaGetLastError();
}

}  // namespace naign::cuda
