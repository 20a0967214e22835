// The search as a function of arrays, for tests/native/test_cuda_kernels.py.
#include <cuda_runtime.h>

#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/search.h"
#include "imle_knn/plan.h"

namespace {

naign::Matrix matrix(const float* values, int64_t rows, int64_t columns) {
  return {values, naign::Dtype::float32, rows, columns, columns, 1};
}

// Nothing may rest on memory being zero.
struct Memory {
  void* bytes;

  explicit Memory(size_t count) : bytes(std::aligned_alloc(256, (count / 256 + 1) * 256)) {
    std::memset(bytes, 0x5a, count);
  }
  ~Memory() { std::free(bytes); }
};

}  // namespace

extern "C" void emulated_device(int capability, int multiprocessors, int late, int backwards) {
  emulation::capability = capability;
  emulation::multiprocessors = multiprocessors;
  emulation::late = late != 0;
  emulation::backwards = backwards != 0;
}

extern "C" int emulated_method(int64_t batches, int64_t rows, int64_t pool_rows, int64_t columns) {
  using namespace naign;
  return static_cast<int>(cuda::method_of(
      {matrix(nullptr, rows, columns), matrix(nullptr, pool_rows, columns), batches, 0, 0, 1, 0}));
}

extern "C" int emulated_search(const float* data, const float* pool, int64_t batches, int64_t rows,
                               int64_t pool_rows, int64_t columns, int64_t k, double reject_below,
                               int method, int64_t capacity, float* distances, int64_t* indices) {
  using namespace naign;
  const cuda::Search search{matrix(data, rows, columns),
                            matrix(pool, pool_rows, columns),
                            batches,
                            rows * columns,
                            pool_rows * columns,
                            k,
                            reject_below,
                            static_cast<cuda::Method>(method),
                            capacity};
  const Memory workspace(cuda::search_bytes(search));
  return cuda::search(search, distances, indices, workspace.bytes, nullptr);
}

// Takes a pool into the result, in chunks of so many rows; returns the bytes of packed data, or -1
// for an error.
extern "C" int64_t emulated_updates(const float* data, const float* pool, int64_t rows,
                                    int64_t pool_rows, int64_t columns, int64_t k,
                                    int64_t chunk_rows, double* distances, int64_t* indices) {
  using namespace naign;
  const Matrix x = matrix(data, rows, columns);
  const size_t bytes = cuda::packed_bytes(rows, columns);
  const Memory packed(bytes);
  const Neighbours result{distances, indices, rows, k};
  bool ok = cuda::pack_data(x, matrix(pool, std::min(chunk_rows, pool_rows), columns), packed.bytes,
                            nullptr) == 0;
  for (int64_t at = 0; at < pool_rows; at += chunk_rows) {
    const Matrix part = matrix(pool + at * columns, std::min(chunk_rows, pool_rows - at), columns);
    const PoolRange range{part, at, -infinity};
    const Memory workspace(cuda::update_bytes(x, range, k, at));
    ok &= cuda::update(x, packed.bytes, range, result, at, workspace.bytes, nullptr) == 0;
  }
  return ok ? static_cast<int64_t>(bytes) : -1;
}

// Which pool rows take part in the filter when rows equal to the one before them are skipped.
extern "C" void emulated_taking_part(const float* pool, int64_t rows, int64_t columns, bool* out) {
  using namespace naign::cuda;
  const naign::Matrix all = matrix(pool, rows, columns);
  const int64_t padded = round_to(rows, chunk_multiple);
  const int64_t slabs = slabs_of(columns);
  std::vector<float> centre(slabs * slab_bytes), largest(2 * frame_samples);
  std::vector<int8_t> values(padded * slabs * slab_bytes);
  std::vector<PoolColumn> found(padded);
  std::vector<RowBound> bounds(padded), panels(padded / panel_rows);
  std::vector<int32_t> wild(padded);
  int32_t wild_count = 0;
  Frame frame{};
  choose_frame(all, all, centre.data(), &frame, largest.data(), nullptr);
  PackProblem problem{};
  problem.rows = all;
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
