// The search as a function of arrays, for tests/test_cuda_kernels.py.
#include <cuda_runtime.h>

#include "naign/imle_knn_cuda.h"

extern "C" int emulated_search(const float* data, const float* pool, int64_t batches, int64_t rows,
                               int64_t pool_rows, int64_t columns, int64_t k, double reject_below,
                               int method, int64_t capacity, int multiprocessors, int late,
                               float* distances, int64_t* indices) {
  using namespace naign;
  emulation::multiprocessors = multiprocessors;
  emulation::late = late != 0;
  const auto matrix = [&](const float* values, int64_t count) {
    return Matrix{values, Dtype::float32, count, columns, columns, 1};
  };
  const cuda::Search search{matrix(data, rows),
                            matrix(pool, pool_rows),
                            batches,
                            rows * columns,
                            pool_rows * columns,
                            k,
                            reject_below,
                            static_cast<cuda::Method>(method),
                            capacity};
  const size_t bytes = cuda::search_bytes(search);
  // Nothing may rest on memory being zero.
  void* workspace = std::aligned_alloc(256, (bytes / 256 + 1) * 256);
  std::memset(workspace, 0x5a, bytes);
  const int status = cuda::search(search, distances, indices, workspace, nullptr);
  std::free(workspace);
  return status;
}
