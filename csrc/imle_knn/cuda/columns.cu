// Few columns: a thread keeps its data row in registers and reads pool rows from shared memory; a
// float32 screen decides which distances are computed exactly.
#include "common/launch.cuh"
#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/nearest.cuh"
#include "imle_knn/cuda/rows.cuh"

namespace naign::cuda {
namespace {

constexpr int threads = static_cast<int>(columns_block_rows);
constexpr int tile_rows = 128;

// The k nearest of a data row, in global memory, written by one thread.
struct ThreadNearest {
  double* distances;
  int64_t* indices;
  int64_t k;

  __device__ static ThreadNearest of(const Neighbours& result, int64_t row) {
    return {result.distances + row * result.k, result.indices + row * result.k, result.k};
  }
  __device__ void clear() const {
    for (int64_t i = 0; i < k; ++i) {
      distances[i] = infinity;
      indices[i] = -1;
    }
  }
  __device__ double worst() const { return distances[k - 1]; }
  __device__ void insert(double distance, int64_t index) const {
    const auto after = [&](int64_t i) {
      return distances[i] > distance ||
             (distances[i] == distance && (indices[i] < 0 || indices[i] > index));
    };
    if (!after(k - 1)) return;
    int64_t place = k - 1;
    for (; place > 0 && after(place - 1); --place) {
      distances[place] = distances[place - 1];
      indices[place] = indices[place - 1];
    }
    distances[place] = distance;
    indices[place] = index;
  }
};

// Halves added to halves.
template <int width, int n>
__device__ double fold(double (&sums)[n]) {
  if constexpr (width == 1) {
    return sums[0];
  } else {
#pragma unroll
    for (int k = 0; k < width / 2; ++k) sums[k] = __dadd_rn(sums[k], sums[k + width / 2]);
    return fold<width / 2>(sums);
  }
}

// Columns beyond the row's are zero: they add exact zeros to the sums, here and below.
template <int padded>
__device__ double exact_distance(const float (&x)[padded], const float* y) {
  double sums[padded];
#pragma unroll
  for (int k = 0; k < padded; ++k) {
    const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
    sums[k] = __dmul_rn(difference, difference);
  }
  return fold<padded>(sums);
}

// Four partial sums of at most eight terms.
template <int padded>
__device__ float screen_distance(const float (&x)[padded], const float* y) {
  float sum[4]{};
#pragma unroll
  for (int k = 0; k < padded; k += 4) {
    const float4 four = *reinterpret_cast<const float4*>(y + k);
    const float difference[4]{x[k] - four.x, x[k + 1] - four.y, x[k + 2] - four.z,
                              x[k + 3] - four.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] = fmaf(difference[i], difference[i], sum[i]);
  }
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <int padded>
__device__ void load_row(const Matrix& matrix, int64_t row, float* out) {
  with_type(matrix.dtype, [&](auto type) {
    const auto values = row_of<decltype(type)>(matrix, row);
#pragma unroll
    for (int k = 0; k < padded; ++k) out[k] = k < matrix.columns ? values[k] : 0;
  });
}

template <int padded>
__global__ void __launch_bounds__(threads, 4) columns_kernel(const ColumnsProblem p) {
  __shared__ __align__(16) float tile[tile_rows][padded];
  const int64_t row = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t share = blockIdx.y;
  const int64_t begin = p.pool.rows * share / p.shares;
  const int64_t end = p.pool.rows * (share + 1) / p.shares;
  const bool exists = row < p.data.rows;
  float x[padded] = {};
  if (exists) load_row<padded>(p.data, row, x);
  bool usable = exists;
#pragma unroll
  for (int k = 0; k < padded; ++k) usable &= is_finite(x[k]);
  const ThreadNearest whole = ThreadNearest::of(p.result, exists ? row : 0);
  const ThreadNearest nearest =
      p.shares == 1 ? whole : ThreadNearest::of(p.partial, exists ? share * p.data.rows + row : 0);
  if (exists && p.shares > 1) nearest.clear();
  const double known = exists ? whole.worst() : 0;
  const ScreenBound screen = ScreenBound::of(p.data.columns, 4);
  float limit = round_up(screen.beyond(known));
  for (int64_t first = begin; first < end; first += tile_rows) {
    const int count = static_cast<int>(min(end - first, static_cast<int64_t>(tile_rows)));
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < count) {
      load_row<padded>(p.pool, first + threadIdx.x, tile[threadIdx.x]);
    }
    __syncthreads();
    if (!usable) continue;
    for (int r = 0; r < count; ++r) {
      const float sum = screen_distance(x, tile[r]);
      if (sum > limit && sum <= largest_float) continue;
      const double distance = exact_distance(x, tile[r]);
      if (!admissible(distance, p.reject_below)) continue;
      nearest.insert(distance, p.first_index + first + r);
      limit = round_up(screen.beyond(fmin(known, nearest.worst())));
    }
  }
}

__global__ void __launch_bounds__(threads) merge_kernel(const ColumnsProblem p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (row >= p.data.rows) return;
  const ThreadNearest whole = ThreadNearest::of(p.result, row);
  for (int share = 0; share < p.shares; ++share) {
    const ThreadNearest part = ThreadNearest::of(p.partial, share * p.data.rows + row);
    for (int64_t i = 0; i < part.k && part.indices[i] >= 0; ++i) {
      whole.insert(part.distances[i], part.indices[i]);
    }
  }
}

template <int padded>
void launch(const ColumnsProblem& problem, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(problem.data.rows, threads));
  const dim3 grid(blocks, static_cast<unsigned>(problem.shares));
  start(columns_kernel<padded>, grid, threads, 0, stream, problem);
  if (problem.shares > 1) start(merge_kernel, blocks, threads, 0, stream, problem);
}

}  // namespace

void compare_few_columns(const ColumnsProblem& problem, cudaStream_t stream) {
  if (problem.data.columns <= 4) return launch<4>(problem, stream);
  if (problem.data.columns <= 8) return launch<8>(problem, stream);
  if (problem.data.columns <= 16) return launch<16>(problem, stream);
  launch<32>(problem, stream);
}

}  // namespace naign::cuda
