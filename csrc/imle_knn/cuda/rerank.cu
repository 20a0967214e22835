// Survivors of the filter: bound again with their own quantisation errors, ordered by score,
// compared exactly.
#include "common/launch.cuh"
#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/nearest.cuh"
#include "imle_knn/cuda/ptx.cuh"
#include "imle_knn/cuda/rows.cuh"

namespace naign::cuda {
namespace {

constexpr int seed_warps = 4;

__device__ uint32_t ordered_bits(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ float from_ordered_bits(uint32_t bits) {
  return __uint_as_float((bits & 0x80000000u) != 0 ? bits ^ 0x80000000u : ~bits);
}

// The k-th smallest by one warp: bit by bit, the largest number below which fewer than k lie.
__device__ float kth_smallest(const float* values, int count, int k, int lane) {
  uint32_t found = 0;
  for (int bit = 31; bit >= 0; --bit) {
    const uint32_t next = found | 1u << bit;
    uint32_t below = 0;
    for (int i = lane; i < count; i += 32) below += ordered_bits(values[i]) < next;
    if (sum_of_warp(below) < static_cast<uint32_t>(k)) found = next;
  }
  return from_ordered_bits(found);
}

__global__ void __launch_bounds__(32 * seed_warps) seed_kernel(const SeedProblem p) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x * seed_warps + threadIdx.x / 32);
  if (row >= p.rows || p.groups_per_row < p.k) return;
  const PackedQuery& packed = p.queries[row];
  if (packed.query.kind != RowKind::usual) return;
  const float* groups = p.groups + static_cast<int64_t>(row) * p.groups_per_row;
  const float score = kth_smallest(groups, p.groups_per_row, p.k, lane);
  if (!is_finite(score)) return;
  RowBound largest{0, 0};
  for (int i = 0; i < p.panel_count; ++i) {
    largest.quantisation_error = fmaxf(largest.quantisation_error, p.panels[i].quantisation_error);
    largest.norm_bound = fmaxf(largest.norm_bound, p.panels[i].norm_bound);
  }
  const double above = distance_above(p.bounds, packed.query, score, largest, *p.frame);
  if (lane == 0 && above < p.bound[row]) p.bound[row] = above;
}

// ------------------------------------------------------------------------------------------------

constexpr int warps = 4;
constexpr int threads = 32 * warps;

struct Shared {
  SharedNearest nearest;
  double distance[warps];
  int64_t index[warps];
  int kept;
};

__device__ bool before(const Candidate& a, const Candidate& b) {
  return a.score < b.score || (a.score == b.score && a.row < b.row);
}

// Candidates that may still win, in the order of their scores; returns how many.
__device__ int select(const RerankProblem& p, const Query& query, double bound,
                      const Candidate* list, int count, Candidate* kept, Candidate* sorted,
                      int* counter) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) *counter = 0;
  __syncthreads();
  for (int c = thread; c < count; c += threads) {
    const Candidate candidate = list[c];
    const RowBound& row = p.row_bounds[candidate.row];
    if (certainly_farther(p.bounds, query, candidate.score, bound, row, *p.frame)) continue;
    kept[atomicAdd(counter, 1)] = candidate;
  }
  __syncthreads();
  const int n = *counter;
  for (int c = thread; c < n; c += threads) {
    int rank = 0;
    for (int other = 0; other < n; ++other) rank += before(kept[other], kept[c]);
    sorted[rank] = kept[c];
  }
  __syncthreads();
  return n;
}

template <class X, class Y>
__device__ double distance_of(const RerankProblem& p, int64_t row, int64_t pool_row, int lane) {
  return exact_distance(row_of<X>(p.data, row), row_of<Y>(p.pool, pool_row), p.data.columns, lane);
}

__device__ double distance_of(const RerankProblem& p, int64_t row, int64_t pool_row, int lane) {
  return with_type(p.data.dtype, [&](auto x) {
    return with_type(p.pool.dtype, [&](auto y) {
      return distance_of<decltype(x), decltype(y)>(p, row, pool_row, lane);
    });
  });
}

__global__ void __launch_bounds__(threads, 6) rerank_kernel(const RerankProblem p) {
  __shared__ Shared shared;
  auto* candidates = reinterpret_cast<Candidate*>(dynamic_shared_memory());
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  const int warp = thread / 32;
  const int k = static_cast<int>(p.result.k);
  const int active = p.selection.active();
  for (int slot = static_cast<int>(blockIdx.x); slot < active;
       slot += static_cast<int>(gridDim.x)) {
    const int row = p.selection.row(slot);
    const Query query = p.queries[slot].query;
    if (query.kind == RowKind::out_of_range && thread == 0) {
      p.exact[atomicAdd(p.exact_count, 1)] = row;
    }
    if (query.kind != RowKind::usual) continue;
    const auto found = static_cast<int64_t>(p.counts[row]);
    const int count = static_cast<int>(found < p.capacity ? found : p.capacity);
    const int out_of_range = *p.out_of_range_count;
    if (count + out_of_range == 0) continue;
    double bound = p.bound[row];
    shared.nearest.load(p.result, row, thread, threads);
    Candidate* sorted = candidates + p.capacity;
    const int kept = select(p, query, bound, p.lists + static_cast<int64_t>(row) * p.capacity,
                            count, candidates, sorted, &shared.kept);
    for (int first = 0; first < kept + out_of_range; first += warps) {
      const int i = first + warp;
      const double worst = fmin(bound, shared.nearest.distances[k - 1]);
      int64_t pool_row = -1;
      if (i < kept) {
        const Candidate candidate = sorted[i];
        if (!certainly_farther(p.bounds, query, candidate.score, worst, p.row_bounds[candidate.row],
                               *p.frame)) {
          pool_row = candidate.row;
        }
      } else if (i < kept + out_of_range) {
        pool_row = p.out_of_range[i - kept];
      }
      const double distance = pool_row >= 0 ? distance_of(p, row, pool_row, lane) : 0;
      if (lane == 0) {
        shared.distance[warp] = distance;
        shared.index[warp] =
            pool_row >= 0 && admissible(distance, p.reject_below) ? p.first_index + pool_row : -1;
      }
      __syncthreads();
      if (warp == 0) {
        for (int w = 0; w < warps; ++w) {
          if (shared.index[w] < 0) continue;
          shared.nearest.insert(k, shared.distance[w], shared.index[w], lane);
        }
      }
      __syncthreads();
    }
    shared.nearest.store(p.result, row, thread, threads);
    if (thread == 0) {
      p.bound[row] = fmin(bound, shared.nearest.distances[k - 1]);
      p.counts[row] = 0;
      if (found > p.capacity) p.overflow[atomicAdd(p.overflow_count, 1)] = row;
    }
    __syncthreads();
  }
}

}  // namespace

void seed_bounds(const SeedProblem& problem, cudaStream_t stream) {
  const auto blocks = static_cast<unsigned>(ceil_div(problem.rows, seed_warps));
  start(seed_kernel, blocks, 32 * seed_warps, 0, stream, problem);
}

void rerank(const RerankProblem& problem, cudaStream_t stream) {
  const bool optional = problem.selection.count != nullptr;
  const int64_t most = optional ? most_optional_blocks : most_blocks;
  const int64_t rows = problem.selection.rows;
  const auto blocks = static_cast<unsigned>(rows < most ? rows : most);
  const size_t bytes = 2 * sizeof(Candidate) * static_cast<size_t>(problem.capacity);
  start(rerank_kernel, blocks, threads, bytes, stream, problem);
}

}  // namespace naign::cuda
