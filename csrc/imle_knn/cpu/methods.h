// The ways to search, which of them is the fastest, and those that work without packing.
#pragma once

#include <cstdint>

#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

enum class Method : int32_t { packed, tree, differences, lane_sums, lanes };

struct Choice {
  Method method;
  double cost;  // nanoseconds of one thread, roughly
};

// Waking another thread takes a few thousand nanoseconds.
constexpr double cost_worth_a_thread = 4e3;

// The fastest way, or the one that force_method() asks for.
Choice choose_method(const Matrix& data, const PoolRange& pool, int64_t k);
// True where force_method() asks for a projection without waiting until it pays.
bool projection_is_forced();

// Takes more pool rows into the running result by any method but `packed`; for rows that are few or
// short.
void search_unpacked(const Choice& choice, const Matrix& data, const PoolRange& pool,
                     const Neighbours& result, const Parallel& parallel);

// A k-d tree over the pool, for a handful of columns. Shares the work among threads by itself.
void search_tree(const Matrix& data, const PoolRange& pool, const Neighbours& result,
                 const Parallel& parallel);

// The others are a share of the work for one thread: a span of the pool rows is taken into the
// running result of a span of the data rows.
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

// Exact distances of every pair; k = 1.
void search_lanes(const Kernels& table, const Rows& data, const PoolRange& pool, Span data_span,
                  Span pool_span, const Neighbours& result);

}  // namespace naign::cpu
