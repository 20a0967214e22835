// Exact search on a CUDA device: queues what a plan says.
#include "imle_knn/cuda/search.h"

#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/search_by_filter.cuh"

namespace naign::cuda {
namespace {

void update_exactly(const ExactPlan& plan, const Matrix& data, const PoolRange& pool,
                    const Neighbours& result, void* workspace, int multiprocessors,
                    cudaStream_t stream) {
  int32_t* locks = plan.segments > 1 ? plan.locks.in(workspace) : nullptr;
  if (locks != nullptr) cudaMemsetAsync(locks, 0, data.rows * sizeof(int32_t), stream);
  ExactProblem problem{};
  problem.data = data;
  problem.pool = pool.rows;
  problem.batches = 1;
  problem.first_index = pool.first_index;
  problem.reject_below = pool.reject_below;
  problem.result = result;
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(data.rows)};
  problem.segment_rows = plan.segment_rows;
  problem.locks = locks;
  compare_exactly(problem, multiprocessors, stream);
}

void update_by_columns(const ColumnsPlan& plan, const Matrix& data, const PoolRange& pool,
                       const Neighbours& result, void* workspace, cudaStream_t stream) {
  const Neighbours partial{plan.distances.in(workspace), plan.indices.in(workspace),
                           plan.shares * data.rows, result.k};
  compare_few_columns({data, pool.rows, pool.first_index, pool.reject_below, result,
                       static_cast<int32_t>(plan.shares), partial},
                      stream);
}

void run_update(const UpdatePlan& plan, const Matrix& data, const PackedLayout& layout,
                void* packed, const PoolRange& pool, const Neighbours& result, void* workspace,
                cudaStream_t stream) {
  const int multiprocessors = plan.device.multiprocessors;
  if (filters(plan.method)) {
    search_by_filter(plan.filter, data, layout, packed, pool, result, workspace, multiprocessors,
                     stream);
  } else if (plan.method == Method::columns) {
    update_by_columns(plan.columns, data, pool, result, workspace, stream);
  } else {
    update_exactly(plan.exact, data, pool, result, workspace, multiprocessors, stream);
  }
}

// Every batch in one launch, from inputs to outputs.
void search_at_once(const SearchPlan& plan, const Search& search, float* distances,
                    int64_t* indices, cudaStream_t stream) {
  ExactProblem problem{};
  problem.data = search.data;
  problem.pool = search.pool;
  problem.data_batch_stride = search.data_batch_stride;
  problem.pool_batch_stride = search.pool_batch_stride;
  problem.batches = static_cast<int32_t>(search.batches);
  problem.reject_below = search.reject_below;
  problem.result = {nullptr, indices, search.batches * search.data.rows, search.k};
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(search.data.rows)};
  problem.segment_rows = search.pool.rows;
  problem.fresh = true;
  problem.rounded = distances;
  compare_exactly(problem, plan.update.device.multiprocessors, stream);
}

Matrix batch_of(const Matrix& matrix, int64_t stride, int64_t batch) {
  Matrix part = matrix;
  part.values = static_cast<const char*>(matrix.values) + batch * stride * bytes_of(matrix.dtype);
  return part;
}

void search_batch(const SearchPlan& plan, const Search& s, int64_t batch, float* distances,
                  int64_t* indices, void* workspace, cudaStream_t stream) {
  const Matrix data = batch_of(s.data, s.data_batch_stride, batch);
  const PoolRange pool{batch_of(s.pool, s.pool_batch_stride, batch), 0, s.reject_below};
  const int64_t at = batch * s.data.rows * s.k;
  const Neighbours result{plan.distances.in(workspace), indices + at, s.data.rows, s.k};
  void* packed = plan.packed.in(workspace);
  clear_neighbours(result, stream);
  if (filters(plan.update.method))
    pack_queries(plan.packed_layout, data, pool.rows, packed, stream);
  void* rest = static_cast<char*>(workspace) + plan.update_offset();
  run_update(plan.update, data, plan.packed_layout, packed, pool, result, rest, stream);
  round_distances(data, result, distances + at, stream);
}

SearchPlan plan_of(const Search& s) {
  return plan_search(s.size(), current_device(), s.method, s.capacity);
}

UpdatePlan plan_of_update(const Matrix& data, const PoolRange& pool, int64_t k, int64_t rows_seen) {
  const SearchSize size{1, data.rows, pool.rows.rows, data.columns, k, pool.reject_below > 0};
  return plan_update(size, rows_seen, current_device());
}

}  // namespace

Device current_device() {
  Device device;
  int number = 0;
  cudaGetDevice(&number);
  cudaDeviceGetAttribute(&device.multiprocessors, cudaDevAttrMultiProcessorCount, number);
  cudaDeviceGetAttribute(&device.major, cudaDevAttrComputeCapabilityMajor, number);
  return device;
}

int launch(const SearchPlan& plan, const Search& search, float* distances, int64_t* indices,
           void* workspace, void* stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  if (!plan.update.supported) return cudaErrorNotSupported;
  if (plan.at_once) {
    search_at_once(plan, search, distances, indices, queue);
    return cudaGetLastError();
  }
  for (int64_t batch = 0; batch < search.batches; ++batch) {
    search_batch(plan, search, batch, distances, indices, workspace, queue);
  }
  return cudaGetLastError();
}

int launch(const UpdatePlan& plan, const Matrix& data, const void* packed, const PoolRange& pool,
           const Neighbours& result, void* workspace, void* stream) {
  run_update(plan, data, packed_layout(data.rows, data.columns), const_cast<void*>(packed), pool,
             result, workspace, static_cast<cudaStream_t>(stream));
  return cudaGetLastError();
}

size_t search_bytes(const Search& search) { return static_cast<size_t>(plan_of(search).bytes()); }

int search(const Search& s, float* distances, int64_t* indices, void* workspace, void* stream) {
  return launch(plan_of(s), s, distances, indices, workspace, stream);
}

size_t packed_bytes(int64_t rows, int64_t columns) {
  const bool needed = packs(rows, columns, current_device());
  return needed ? static_cast<size_t>(packed_layout(rows, columns).bytes) : 0;
}

int pack_data(const Matrix& data, const Matrix& sample, void* packed, void* stream) {
  if (!packs(data.rows, data.columns, current_device())) return cudaSuccess;
  pack_queries(packed_layout(data.rows, data.columns), data, sample, packed,
               static_cast<cudaStream_t>(stream));
  return cudaGetLastError();
}

size_t update_bytes(const Matrix& data, const PoolRange& pool, int64_t k, int64_t rows_seen) {
  return static_cast<size_t>(plan_of_update(data, pool, k, rows_seen).bytes());
}

int update(const Matrix& data, const void* packed, const PoolRange& pool, const Neighbours& result,
           int64_t rows_seen, void* workspace, void* stream) {
  return launch(plan_of_update(data, pool, result.k, rows_seen), data, packed, pool, result,
                workspace, stream);
}

}  // namespace naign::cuda
