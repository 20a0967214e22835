// The ways to search without packing, each a share of the work for one thread: a span of the pool
// rows is taken into the running result of a span of the data rows.
#pragma once

#include <cstdint>

#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

struct Span {
  int64_t first;
  int64_t last;
};

// Float32 distances of every pair, exact ones of those that may be nearest.
void search_differences(const Kernels& table, const Rows& data, const PoolRange& pool,
                        Span data_span, Span pool_span, const Neighbours& result);

// Float32 distances of every pair, 32 data rows at a time; k = 1 and nothing is rejected.
void search_lane_sums(const Kernels& table, const Rows& data, const PoolRange& pool, Span data_span,
                      Span pool_span, const Neighbours& result);

// A k-d tree over the pool, for a handful of columns. Shares the work among threads by itself.
void search_tree(const Matrix& data, const PoolRange& pool, const Neighbours& result,
                 const Parallel& parallel);

// Exact distances of every pair; k = 1.
void search_lanes(const Kernels& table, const Rows& data, const PoolRange& pool, Span data_span,
                  Span pool_span, const Neighbours& result);

}  // namespace naign::cpu
