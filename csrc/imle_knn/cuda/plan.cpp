#include "imle_knn/cuda/plan.h"

namespace naign::cuda {
namespace {

constexpr int64_t mebibyte = int64_t{1} << 20;
constexpr int64_t query_memory = 112 * mebibyte;
constexpr int64_t pool_memory = 128 * mebibyte;
constexpr int64_t list_memory = 16 * mebibyte;
constexpr int64_t partial_memory = 64 * mebibyte;

// Comparing this many numbers exactly takes no longer than the filter's many small steps.
constexpr int64_t exact_work = int64_t{1} << 26;
constexpr int64_t few_rows = 4;

bool is_small(const SearchSize& size) {
  return size.rows * size.pool_rows * size.columns <= exact_work;
}

bool may_filter(int64_t columns, const Device& device) {
  return device.has_filter() && columns > largest_columns_by_thread &&
         columns <= largest_integer_columns;
}

bool tightens(const SearchSize& size) { return size.k == 1 && !size.rejects; }

std::vector<Range> groups_of(int64_t rows, int64_t group_rows) {
  std::vector<Range> groups;
  for (int64_t first = 0; first < rows; first += group_rows) {
    groups.push_back({first, std::min(group_rows, rows - first)});
  }
  return groups;
}

std::vector<Range> chunks_of(int64_t pool_rows, const FilterLimits& limits, int64_t rows_seen) {
  std::vector<Range> chunks;
  for (int64_t first = 0; first < pool_rows; first += chunks.back().rows) {
    chunks.push_back({first, limits.next_chunk(rows_seen + first, pool_rows - first)});
  }
  return chunks;
}

FilterLayout filter_layout(const FilterLimits& limits, int64_t columns) {
  const int64_t rows = limits.group_rows;
  const int64_t chunk = limits.chunk_rows;
  const int64_t row_bytes = slabs_of(columns) * slab_bytes;
  // The seed's groups lie where the lists are later: two floats take the place of a candidate.
  const int64_t seed_entries = rows * limits.seed_rows / seed_group_rows / 2;
  FilterLayout at;
  Layout layout;
  layout.place(at.bound, rows);
  layout.place(at.counts, rows);
  layout.place(at.lists, std::max(rows * limits.capacity, seed_entries));
  layout.place(at.locks, rows);
  layout.place(at.overflow, rows);
  layout.place(at.exact, rows * (1 + Counters::most_parts));
  layout.place(at.queries, rows);
  layout.place(at.query_values, rows * 2 * row_bytes);
  layout.place(at.counters, 1);
  layout.place(at.panels, chunk / panel_rows);
  layout.place(at.panels_again, chunk / panel_rows + 2 * Counters::most_parts);
  layout.place(at.columns, chunk);
  layout.place(at.row_bounds, chunk);
  layout.place(at.out_of_range, chunk);
  layout.place(at.values, std::max(chunk, 2 * limits.part_rows(chunk)) * row_bytes);
  at.bytes = layout.bytes();
  return at;
}

// `items`: data rows of all batches that are compared at the same time.
ExactPlan plan_exact(const SearchSize& size, int64_t items, const Device& device) {
  constexpr int64_t least_rows = 256;
  const int64_t wanted = ceil_div(8 * device.multiprocessors, std::max<int64_t>(1, items));
  ExactPlan plan;
  plan.segment_rows =
      std::max(least_rows, round_to(ceil_div(size.pool_rows, wanted), exact_round_rows));
  plan.segments = ceil_div(size.pool_rows, plan.segment_rows);
  Layout layout;
  layout.place(plan.locks, plan.segments > 1 ? size.rows : 0);
  plan.bytes = layout.bytes();
  return plan;
}

ColumnsPlan plan_columns(const SearchSize& size, const Device& device) {
  const int64_t blocks = ceil_div(size.rows, columns_block_rows);
  const int64_t wanted = ceil_div(8 * device.multiprocessors, blocks);
  const int64_t fitting = std::max<int64_t>(1, partial_memory / (16 * size.rows * size.k));
  ColumnsPlan plan;
  constexpr int64_t least_rows = 1024;
  constexpr int64_t most_shares = 1024;
  plan.shares = std::min({wanted, fitting, ceil_div(size.pool_rows, least_rows), most_shares});
  const int64_t entries = plan.shares > 1 ? plan.shares * size.rows * size.k : 0;
  Layout layout;
  layout.place(plan.distances, entries);
  layout.place(plan.indices, entries);
  plan.bytes = layout.bytes();
  return plan;
}

UpdatePlan plan_by(Method method, const SearchSize& size, int64_t rows_seen, const Device& device,
                   int64_t capacity) {
  UpdatePlan plan;
  plan.device = device;
  plan.method = method;
  plan.supported = !filters(method) || device.has_filter();
  if (filters(method)) {
    const bool by_wgmma = device.has_wgmma() && method == Method::filter;
    plan.filter = plan_filter(size, filter_limits(size, capacity), rows_seen, by_wgmma);
  } else if (method == Method::columns) {
    plan.columns = plan_columns(size, device);
  } else {
    plan.exact = plan_exact(size, size.rows, device);
  }
  return plan;
}

}  // namespace

Method method_of(const SearchSize& size, const Device& device) {
  const bool few = size.batches == 1 && size.rows <= few_rows;
  if (few || is_small(size)) return Method::exact;
  if (size.columns <= largest_columns_by_thread) return Method::columns;
  return may_filter(size.columns, device) ? Method::filter : Method::exact;
}

PackedLayout packed_layout(int64_t rows, int64_t columns) {
  const int64_t padded = round_to(rows, panel_rows);
  const int64_t row_bytes = slabs_of(columns) * slab_bytes;
  PackedLayout at;
  Layout layout;
  layout.place(at.frame, 1);
  layout.place(at.centre, row_bytes);
  layout.place(at.largest, 2 * frame_samples);
  layout.place(at.queries, padded);
  layout.place(at.values, padded * row_bytes);
  at.bytes = layout.bytes();
  return at;
}

bool packs(int64_t rows, int64_t columns, const Device& device) {
  return rows > few_rows && may_filter(columns, device);
}

FilterLimits filter_limits(const SearchSize& size, int64_t capacity) {
  const int64_t row_bytes = slabs_of(size.columns) * slab_bytes;
  FilterLimits limits{};
  const int64_t fitting = list_memory / (8 * std::max<int64_t>(1, size.rows));
  limits.capacity = std::max(std::clamp<int64_t>(16 * size.k, 128, largest_capacity),
                             std::min(largest_capacity, fitting));
  if (capacity > 0) limits.capacity = capacity;
  // With two digits, in the tighter filter; lists; bounds, counts and numbers.
  const int64_t query_bytes = 2 * row_bytes + 8 * limits.capacity + 128;
  limits.group_rows = std::max(panel_rows, query_memory / query_bytes / panel_rows * panel_rows);
  limits.group_rows = std::min(limits.group_rows, round_to(size.rows, panel_rows));
  const int64_t most = pool_memory / (row_bytes + 64) / widest_tile * widest_tile;
  const int64_t whole = std::min(most, round_to(size.pool_rows, widest_tile));
  // The tighter filter's rows are twice as long and take the place of the others. Few data rows are
  // served best by long chunks.
  limits.parts = size.rows <= 4 * panel_rows && 2 * whole > most ? 2 : 1;
  limits.chunk_rows =
      limits.parts == 2 ? whole : std::min(whole, most / 2 / widest_tile * widest_tile);
  limits.chunk_rows = std::max(limits.chunk_rows, widest_tile);
  limits.seed_rows = std::max<int64_t>(2048, round_to(2 * seed_group_rows * size.k, widest_tile));
  const bool roomy = limits.capacity >= largest_capacity;
  limits.growth = tightens(size) ? (roomy ? 64 : 7) : (roomy && size.k <= 8 ? 16 : 1);
  // The time of a small search is that of its kernels' latencies: where lists are long, a small
  // pool is held against the seed's bounds at once, though these are looser than distances.
  const bool at_once =
      tightens(size) && roomy && size.pool_rows <= limits.growth / 4 * limits.seed_rows;
  limits.first_rows = at_once ? limits.chunk_rows : limits.seed_rows;
  return limits;
}

FilterPlan plan_filter(const SearchSize& size, const FilterLimits& limits, int64_t rows_seen,
                       bool by_wgmma) {
  FilterPlan plan;
  plan.by_wgmma = by_wgmma;
  plan.tightens = tightens(size);
  plan.limits = limits;
  plan.groups = groups_of(size.rows, limits.group_rows);
  plan.chunks = chunks_of(size.pool_rows, limits, rows_seen);
  plan.seeds = rows_seen == 0;
  plan.layout = filter_layout(limits, size.columns);
  return plan;
}

UpdatePlan plan_update(const SearchSize& size, int64_t rows_seen, const Device& device) {
  return plan_by(method_of(size, device), size, rows_seen, device, 0);
}

SearchPlan plan_search(const SearchSize& size, const Device& device, Method method,
                       int64_t capacity) {
  if (method == Method::automatic) method = method_of(size, device);
  SearchPlan plan;
  plan.update.device = device;
  if (method == Method::exact) {
    const ExactPlan together = plan_exact(size, size.batches * size.rows, device);
    plan.at_once = together.segments == 1 || (size.batches > 1 && is_small(size));
    if (plan.at_once) return plan;
  }
  Layout layout;
  layout.place(plan.distances, size.rows * size.k);
  if (filters(method)) plan.packed_layout = packed_layout(size.rows, size.columns);
  layout.place(plan.packed, plan.packed_layout.bytes);
  plan.update = plan_by(method, size, 0, device, capacity);
  return plan;
}

}  // namespace naign::cuda
