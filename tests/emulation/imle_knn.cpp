// The search as a function of arrays, for tests/test_cuda_kernels.py.
#include <cuda_runtime.h>

#include "../../csrc/cuda/imle_knn_kernels.cuh"
#include "naign/imle_knn_cuda.h"
#include "naign/imle_knn_plan.h"

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

// Which pool rows take part in the filter when rows equal to the one before them are skipped.
extern "C" void emulated_taking_part(const float* pool, int64_t rows, int64_t columns, bool* out) {
  using namespace naign::cuda;
  const naign::Matrix matrix{pool, naign::Dtype::float32, rows, columns, columns, 1};
  const int64_t padded = round_to(rows, chunk_multiple);
  const int64_t slabs = slabs_of(columns);
  std::vector<float> centre(slabs * slab_bytes), largest(2 * frame_samples);
  std::vector<int8_t> values(padded * slabs * slab_bytes);
  std::vector<PoolColumn> found(padded);
  std::vector<RowBound> bounds(padded), panels(padded / panel_rows);
  std::vector<int32_t> wild(padded);
  int32_t wild_count = 0;
  Frame frame{};
  choose_frame(matrix, matrix, centre.data(), &frame, largest.data(), nullptr);
  PackProblem problem{};
  problem.rows = matrix;
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(rows)};
  problem.padded_rows = padded;
  problem.centre = centre.data();
  problem.frame = &frame;
  problem.values = values.data();
  problem.slabs = static_cast<int32_t>(slabs);
  problem.digits = 1;
  problem.columns = found.data();
  problem.bounds = bounds.data();
  problem.panels = panels.data();
  problem.wild = wild.data();
  problem.wild_count = &wild_count;
  problem.skips_repeats = true;
  pack_rows(problem, nullptr);
  for (int64_t i = 0; i < rows; ++i) out[i] = found[i].norm < naign::float_infinity;
}
