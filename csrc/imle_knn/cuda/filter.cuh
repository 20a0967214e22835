// What every filter kernel does with the integer sums of a tile: test the bound, tighten it, keep
// the survivors. docs/exactness.md, section 5.
#pragma once

#include <cstdint>

#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/nearest.cuh"
#include "imle_knn/cuda/plan.h"

namespace naign::cuda {

// What one data row's pairs with the pool rows of a tile are held against.
struct RowLimit {
  float limit;         // scores above it are too far
  float rejected;      // scores below it are rejected (when seeding: scores up to it may be)
  float double_scale;  // of the packed query
  int32_t query;       // of the group
};

__device__ inline RowLimit row_limit(const FilterProblem& p, int slot, int active,
                                     const RowBound& rows) {
  if (slot >= active) return {-float_infinity, float_infinity, 0, 0};
  const int query = p.ids != nullptr ? p.ids[slot] : slot;
  const PackedQuery& packed = p.queries[slot];
  const Frame frame = *p.frame;
  RowLimit limit{};
  limit.double_scale = 2 * packed.scale;
  limit.query = query;
  if (p.groups != nullptr) {
    limit.limit = -float_infinity;
    limit.rejected = admissible_limit(p.bounds, packed.query, p.reject_below, rows, frame);
    return limit;
  }
  limit.limit = score_limit(p.bounds, packed.query, __ldcg(p.bound + query), rows, frame);
  limit.rejected = -round_up(-rejected_limit(p.bounds, packed.query, p.reject_below, rows, frame));
  return limit;
}

__device__ inline void append(const FilterProblem& p, int query, int32_t row, float score) {
  const uint32_t at = atomicAdd(p.counts + query, 1u);
  if (at < static_cast<uint32_t>(p.capacity)) {
    p.lists[static_cast<int64_t>(query) * p.capacity + at] = {row, score};
  }
}

// One warp's share of a tile: row_pairs x 16 data rows, column_blocks x 8 pool rows, its sums in
// the layout of fragment_row and fragment_column. `rows` and `columns` lie in shared memory and
// begin with the warp's first; `first_column` is the chunk's row of columns[0].
template <int row_pairs, int column_blocks>
struct WarpTile {
  static_assert(column_blocks % 8 == 0);
  static constexpr int rows_per_lane = 2 * row_pairs;

  const FilterProblem& problem;
  int32_t* sum;  // [row_pairs][column_blocks][4]
  const RowLimit* rows;
  const PoolColumn* columns;
  int64_t first_column;
  int slot;  // of rows[0]
  int lane;

  __device__ const RowLimit& row(int r) const {
    return rows[r / 2 * 16 + fragment_row(lane, r % 2 * 2)];
  }
  __device__ int32_t sum_of(int r, int block, int e) const {
    return sum[(r / 2 * column_blocks + block) * 4 + r % 2 * 2 + e];
  }
  // Two neighbouring pool rows of a block.
  __device__ float4 pair_of_columns(int block) const {
    return reinterpret_cast<const float4*>(columns)[(block * 8 + fragment_column(lane, 0)) / 2];
  }
  __device__ static float score(int32_t sum, float double_scale, float norm, float scale) {
    return score_of(sum, double_scale, PoolColumn{norm, scale});
  }

  // Keeps the smallest score of every 16 pool rows, which bounds the k-th distance once there are k
  // of them.
  __device__ void seed() const {
#pragma unroll
    for (int r = 0; r < rows_per_lane; ++r) {
      const RowLimit limit = row(r);
#pragma unroll
      for (int strip = 0; strip < column_blocks / 8; ++strip) {
        float best = float_infinity;
#pragma unroll
        for (int block = strip * 8; block < strip * 8 + 8; ++block) {
          const float4 c = pair_of_columns(block);
          const float s0 = score(sum_of(r, block, 0), limit.double_scale, c.x, c.y);
          const float s1 = score(sum_of(r, block, 1), limit.double_scale, c.z, c.w);
          if (s0 > limit.rejected) best = fminf(best, s0);
          if (s1 > limit.rejected) best = fminf(best, s1);
        }
        const int64_t group =
            seed_group_of(first_column + strip * seed_strip_rows + fragment_column(lane, 0));
        const int64_t at = slot + r / 2 * 16 + fragment_row(lane, r % 2 * 2);
        // The tile may be wider than what is left of the pool.
        if (at < problem.rows && group < problem.groups_per_row) {
          problem.groups[at * problem.groups_per_row + group] = best;
        }
      }
    }
  }

  __device__ void filter(const RowBound& bound) const {
    float limits[rows_per_lane];
    float scales[rows_per_lane];
    float best[rows_per_lane];
#pragma unroll
    for (int r = 0; r < rows_per_lane; ++r) {
      limits[r] = row(r).limit;
      scales[r] = row(r).double_scale;
      best[r] = float_infinity;
    }
#pragma unroll
    for (int block = 0; block < column_blocks; ++block) {
      const float4 c = pair_of_columns(block);
#pragma unroll
      for (int r = 0; r < rows_per_lane; ++r) {
        const float s0 = score(sum_of(r, block, 0), scales[r], c.x, c.y);
        const float s1 = score(sum_of(r, block, 1), scales[r], c.z, c.w);
        best[r] = fminf(best[r], fminf(s0, s1));
      }
    }
#pragma unroll
    for (int r = 0; r < rows_per_lane; ++r) {
      // Four lanes share a row.
      float row_best = fminf(best[r], __shfl_xor_sync(~0u, best[r], 1));
      row_best = fminf(row_best, __shfl_xor_sync(~0u, row_best, 2));
      if (row_best <= limits[r]) keep(r, bound, row_best, limits[r]);
    }
  }

  __device__ void keep(int r, const RowBound& bound, float best, float limit) const {
    // Scores are computed again here: keeping them all would take more registers than there are.
    forget();
    const RowLimit own = row(r);
    if (problem.tightens) limit = fminf(limit, tighten(r, own.query, bound, best));
#pragma unroll
    for (int block = 0; block < column_blocks; ++block) {
      const float4 c = pair_of_columns(block);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float s =
            score(sum_of(r, block, e), own.double_scale, e == 0 ? c.x : c.z, e == 0 ? c.y : c.w);
        if (s <= limit && !(s < own.rejected)) {
          const int64_t column = first_column + block * 8 + fragment_column(lane, e);
          append(problem, own.query, static_cast<int32_t>(column), s);
        }
      }
    }
  }

  // Makes the compiler take sums and shared memory for new.
  __device__ void forget() const {
#pragma unroll
    for (int i = 0; i < row_pairs * column_blocks * 4; ++i)
      asm volatile("" : "+r"(sum[i])::"memory");
  }

  // The best score of a row bounds its nearest distance from above.
  __device__ float tighten(int r, int query, const RowBound& bound, float best) const {
    const int at = slot + r / 2 * 16 + fragment_row(lane, r % 2 * 2);
    const Query& packed = problem.queries[at].query;
    const Frame frame = *problem.frame;
    const double above = distance_above(problem.bounds, packed, best, bound, frame);
    if (lane % 4 == 0) lower_bound_to(problem.bound + query, above);
    return score_limit(problem.bounds, packed, above, bound, frame);
  }
};

}  // namespace naign::cuda
