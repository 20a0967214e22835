// Every pair compared exactly, after a float32 screen: the last resort of the filter, and all there
// is to small problems.
#include "common/launch.cuh"
#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/nearest.cuh"
#include "imle_knn/cuda/rows.cuh"

namespace naign::cuda {
namespace {

constexpr int warps = 8;
constexpr int threads = 32 * warps;
constexpr int round_rows = static_cast<int>(exact_round_rows);
constexpr int rows_per_warp = round_rows / warps;
// Shorter rows are compared as fast as they are screened.
constexpr int64_t least_screened = 64;

struct Shared {
  SharedNearest nearest;
  SharedNearest merged;
  double distance[round_rows];
  int64_t index[round_rows];
};

template <class X>
__device__ bool all_finite(const Row<X>& row, int64_t columns, int lane) {
  bool finite = true;
  for (int64_t k = lane; k < columns; k += 32) finite &= is_finite(row[k]);
  return __all_sync(~0u, finite);
}

__device__ bool row_is_finite(const Matrix& matrix, int64_t row, int lane) {
  return with_type(matrix.dtype, [&](auto type) {
    return all_finite(row_of<decltype(type)>(matrix, row), matrix.columns, lane);
  });
}

// A data row and a stretch of the pool.
struct Item {
  Matrix data;
  Matrix pool;
  int64_t row;     // of data
  int64_t output;  // of the result
  int64_t first;
  int64_t last;
};

__device__ Item item_of(const ExactProblem& p, int64_t number, int64_t active, int64_t segments) {
  const int64_t segment = number % segments;
  const int64_t slot = number / segments % active;
  const int64_t batch = number / segments / active;
  Item item{p.data, p.pool, p.selection.row(static_cast<int>(slot)), 0, 0, 0};
  item.output = batch * p.data.rows + item.row;
  item.first = segment * p.segment_rows;
  item.last = min(item.first + p.segment_rows, p.pool.rows);
  item.data.values = static_cast<const char*>(p.data.values) +
                     batch * p.data_batch_stride * bytes_of(p.data.dtype);
  item.pool.values = static_cast<const char*>(p.pool.values) +
                     batch * p.pool_batch_stride * bytes_of(p.pool.dtype);
  return item;
}

// One warp's rows of a round; leaves distances and indices, -1 where a row is too far.
template <class X, class Y>
__device__ void compare_round(const ExactProblem& p, const Item& item, int64_t first, double worst,
                              Shared& shared, int warp, int lane) {
  const ScreenBound screen = ScreenBound::of(p.data.columns);
  const Row<X> x = row_of<X>(item.data, item.row);
  for (int i = 0; i < rows_per_warp; ++i) {
    const int place = warp * rows_per_warp + i;
    const int64_t pool_row = first + place;
    double distance = infinity;
    if (pool_row < item.last) {
      const Row<Y> y = row_of<Y>(item.pool, pool_row);
      const bool far = p.data.columns >= least_screened &&
                       screen.farther(screen_distance(x, y, p.data.columns, lane), worst);
      if (!far) distance = exact_distance(x, y, p.data.columns, lane);
    }
    if (lane == 0) {
      shared.distance[place] = distance;
      shared.index[place] =
          admissible(distance, p.reject_below) ? p.first_index + pool_row : int64_t{-1};
    }
  }
}

__device__ void compare_round(const ExactProblem& p, const Item& item, int64_t first, double worst,
                              Shared& shared, int warp, int lane) {
  with_type(p.data.dtype, [&](auto x) {
    with_type(p.pool.dtype, [&](auto y) {
      compare_round<decltype(x), decltype(y)>(p, item, first, worst, shared, warp, lane);
    });
  });
}

// Blocks with other segments of the same data row may be here at the same time.
__device__ void merge(const ExactProblem& p, int64_t row, int k, Shared& shared, int thread) {
  if (thread == 0) {
    while (atomicCAS(p.locks + row, 0, 1) != 0) {
    }
    __threadfence();
  }
  __syncthreads();
  shared.merged.load(p.result, row, thread, threads);
  __syncthreads();
  if (thread < 32) {
    for (int i = 0; i < k && shared.nearest.indices[i] >= 0; ++i) {
      shared.merged.insert(k, shared.nearest.distances[i], shared.nearest.indices[i], thread);
    }
  }
  __syncthreads();
  shared.merged.store(p.result, row, thread, threads);
  if (thread == 0 && p.bound != nullptr) {
    lower_bound_to(p.bound + row, shared.merged.distances[k - 1]);
  }
  __threadfence();
  __syncthreads();
  if (thread == 0) atomicExch(p.locks + row, 0);
}

__device__ void write_rounded(const ExactProblem& p, const Item& item, int k, const Shared& shared,
                              int thread) {
  const int lane = thread % 32;
  bool usable = true;
  if (shared.nearest.indices[0] < 0) usable = row_is_finite(item.data, item.row, lane);
  for (int i = thread; i < k; i += threads) {
    const int64_t at = item.output * k + i;
    p.result.indices[at] = shared.nearest.indices[i];
    p.rounded[at] = usable ? static_cast<float>(shared.nearest.distances[i]) : nanf("");
  }
}

__global__ void __launch_bounds__(threads) exact_kernel(const ExactProblem p) {
  __shared__ Shared shared;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int k = static_cast<int>(p.result.k);
  const int64_t active = p.selection.active();
  const int64_t segments = ceil_div(p.pool.rows, p.segment_rows);
  const int64_t items = p.batches * active * segments;
  for (int64_t number = blockIdx.x; number < items; number += gridDim.x) {
    const Item item = item_of(p, number, active, segments);
    double bound = p.bound != nullptr ? __ldcg(p.bound + item.row) : infinity;
    if (p.fresh || p.locks != nullptr) {
      // Another block may be writing the result: only single numbers of it mean something. Its last
      // distance only falls.
      shared.nearest.clear(k, thread, threads);
      if (!p.fresh) bound = fmin(bound, __ldcg(p.result.distances + item.output * k + k - 1));
    } else {
      shared.nearest.load(p.result, item.output, thread, threads);
    }
    __syncthreads();
    for (int64_t first = item.first; first < item.last; first += round_rows) {
      const double worst = fmin(bound, shared.nearest.distances[k - 1]);
      compare_round(p, item, first, worst, shared, warp, lane);
      __syncthreads();
      if (warp == 0) {
        const double distance = shared.distance[lane];
        const int64_t index = shared.index[lane];
        for (uint32_t hits = __ballot_sync(~0u, index >= 0); hits != 0; hits &= hits - 1) {
          const int from = __ffs(static_cast<int>(hits)) - 1;
          shared.nearest.insert(k, __shfl_sync(~0u, distance, from), __shfl_sync(~0u, index, from),
                                lane);
        }
      }
      __syncthreads();
    }
    if (p.locks != nullptr) {
      merge(p, item.output, k, shared, thread);
    } else if (p.rounded != nullptr) {
      write_rounded(p, item, k, shared, thread);
    } else {
      shared.nearest.store(p.result, item.output, thread, threads);
    }
    __syncthreads();
  }
}

// ------------------------------------------------------------------------------------------------

constexpr int clear_threads = 256;

__global__ void __launch_bounds__(clear_threads) clear_kernel(const Neighbours result) {
  const int64_t entries = result.rows * result.k;
  for (int64_t i = blockIdx.x * clear_threads + threadIdx.x; i < entries;
       i += static_cast<int64_t>(gridDim.x) * clear_threads) {
    result.distances[i] = infinity;
    result.indices[i] = -1;
  }
}

__global__ void __launch_bounds__(clear_threads)
    worst_kernel(const Neighbours result, double* bound) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * clear_threads + threadIdx.x;
  if (row < result.rows) bound[row] = result.distances[row * result.k + result.k - 1];
}

__global__ void __launch_bounds__(clear_threads)
    round_kernel(const Matrix data, const Neighbours result, float* distances) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (clear_threads / 32) + threadIdx.x / 32;
  if (row >= result.rows) return;
  const bool usable = result.indices[row * result.k] >= 0 || row_is_finite(data, row, lane);
  for (int64_t i = row * result.k + lane; i < (row + 1) * result.k; i += 32) {
    distances[i] = usable ? static_cast<float>(result.distances[i]) : nanf("");
  }
}

unsigned blocks_for(int64_t items, int64_t per_block) {
  return static_cast<unsigned>(ceil_div(items, per_block));
}

}  // namespace

void compare_exactly(const ExactProblem& problem, int multiprocessors, cudaStream_t stream) {
  const int64_t items = static_cast<int64_t>(problem.batches) * problem.selection.rows *
                        ceil_div(problem.pool.rows, problem.segment_rows);
  const int64_t most = problem.selection.count != nullptr ? 8 * multiprocessors : most_blocks;
  const int64_t blocks = items < most ? items : most;
  start(exact_kernel, static_cast<unsigned>(blocks), threads, 0, stream, problem);
}

void clear_neighbours(const Neighbours& result, cudaStream_t stream) {
  const int64_t blocks = ceil_div(result.rows * result.k, clear_threads);
  start(clear_kernel, static_cast<unsigned>(blocks < most_blocks ? blocks : most_blocks),
        clear_threads, 0, stream, result);
}

void worst_of(const Neighbours& result, double* bound, cudaStream_t stream) {
  start(worst_kernel, blocks_for(result.rows, clear_threads), clear_threads, 0, stream, result,
        bound);
}

void round_distances(const Matrix& data, const Neighbours& result, float* distances,
                     cudaStream_t stream) {
  start(round_kernel, blocks_for(result.rows, clear_threads / 32), clear_threads, 0, stream, data,
        result, distances);
}

}  // namespace naign::cuda
