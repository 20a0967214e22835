// How the CUDA search cuts its work: memory stays bounded whatever the sizes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "imle_knn/packing.h"

namespace naign::cuda {

// Pool rows of a chunk are a multiple of the widest tile.
constexpr int64_t chunk_multiple = 256;
// Smallest scores are collected for this many pool rows each: every fourth pair of a strip's.
constexpr int64_t seed_group_rows = 16;
constexpr int64_t seed_strip_rows = 64;

// Groups of a data row, and the one to which a pool row belongs. A strip belongs to one warp, a
// group to one lane in four: no two threads write the same group.
constexpr int64_t seed_groups(int64_t pool_rows) {
  return ceil_div(pool_rows, seed_strip_rows) * (seed_strip_rows / seed_group_rows);
}
NAIGN_HOST_DEVICE constexpr int64_t seed_group_of(int64_t pool_row) {
  return pool_row / seed_strip_rows * (seed_strip_rows / seed_group_rows) + pool_row / 2 % 4;
}

struct Plan {
  int64_t capacity;    // candidates a data row
  int64_t group_rows;  // data rows at a time, a multiple of a panel
  int64_t chunk_rows;  // pool rows at a time, at most
  int64_t parts;       // pieces of a chunk in the tighter filter
  int64_t seed_rows;   // pool rows that give the first bounds
  int64_t first_rows;  // of the first chunk, at most; it begins with the seed
  int64_t growth;      // a chunk has at most this many times the rows before it

  // The rows of the next chunk.
  int64_t next_chunk(int64_t seen, int64_t left) const {
    const int64_t wanted = seen == 0 ? first_rows : std::max(seed_rows, growth * seen);
    return std::min({wanted, chunk_rows, left});
  }
};

constexpr int64_t query_memory = int64_t{112} << 20;
constexpr int64_t pool_memory = int64_t{128} << 20;
constexpr int64_t list_memory = int64_t{16} << 20;
constexpr int64_t largest_capacity = 1024;

inline int64_t round_to(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

// `limit` on candidates a data row is for tests; 0 for none.
inline Plan plan_for(int64_t rows, int64_t pool_rows, int64_t columns, int64_t k, bool tightens,
                     int64_t limit = 0) {
  const int64_t row_bytes = slabs_of(columns) * slab_bytes;
  Plan plan{};
  plan.capacity = std::clamp<int64_t>(16 * k, 128, largest_capacity);
  plan.capacity = std::max(
      plan.capacity, std::min(largest_capacity, list_memory / (8 * std::max<int64_t>(1, rows))));
  if (limit > 0) plan.capacity = limit;
  // With two digits, in the tighter filter; lists; bounds, counts and numbers.
  const int64_t query_bytes = 2 * row_bytes + 8 * plan.capacity + 128;
  plan.group_rows = std::max(panel_rows, query_memory / query_bytes / panel_rows * panel_rows);
  plan.group_rows = std::min(plan.group_rows, round_to(rows, panel_rows));
  const int64_t most = pool_memory / (row_bytes + 64) / chunk_multiple * chunk_multiple;
  const int64_t whole = std::min(most, round_to(pool_rows, chunk_multiple));
  // The tighter filter's rows are twice as long and take the place of the others. Few data rows are
  // served best by long chunks.
  plan.parts = rows <= 4 * panel_rows && 2 * whole > most ? 2 : 1;
  plan.chunk_rows =
      plan.parts == 2 ? whole : std::min(whole, most / 2 / chunk_multiple * chunk_multiple);
  plan.chunk_rows = std::max(plan.chunk_rows, chunk_multiple);
  plan.seed_rows = std::max<int64_t>(2048, round_to(2 * seed_group_rows * k, chunk_multiple));
  const bool roomy = plan.capacity >= largest_capacity;
  plan.growth = tightens ? (roomy ? 64 : 7) : (roomy && k <= 8 ? 16 : 1);
  // The time of a small search is that of its kernels' latencies: where lists are long, a small
  // pool is held against the seed's bounds at once, though these are looser than distances.
  const bool at_once = tightens && roomy && pool_rows <= plan.growth / 4 * plan.seed_rows;
  plan.first_rows = at_once ? plan.chunk_rows : plan.seed_rows;
  return plan;
}

}  // namespace naign::cuda
