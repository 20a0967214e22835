// What a search on a CUDA device plans, over many sizes; needs no device. Prints a line for every
// check: its name, then "ok" or what does not hold.
#include "imle_knn/cuda/plan.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <set>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace naign::cuda;

std::string wrong;

void expect(bool holds, const SearchSize& size,
            const std::source_location& at = std::source_location::current()) {
  if (holds || !wrong.empty()) return;
  char text[200];
  std::snprintf(text, sizeof text,
                "line %u: batches %ld, rows %ld, pool_rows %ld, columns %ld, k %ld, rejects %d",
                at.line(), size.batches, size.rows, size.pool_rows, size.columns, size.k,
                static_cast<int>(size.rejects));
  wrong = text;
}

constexpr int64_t million = 1000000;
const Device turing{40, 7}, ampere{108, 8}, hopper{132, 9}, blackwell{148, 10};
const std::vector<Device> devices{turing, ampere, hopper, blackwell, {1, 9}};

std::vector<SearchSize> many_sizes() {
  std::vector<SearchSize> sizes;
  for (const int64_t rows : {1, 4, 5, 100, 128, 129, 512, 513, 2048, 2049, 60000, 1000000})
    for (const int64_t pool_rows : {1, 255, 257, 2048, 10000, 40000, 300000, 10000000})
      for (const int64_t columns : {1, 32, 33, 128, 129, 784, 1024, 12288, 60000, 60001})
        for (const int64_t k : {1, 2, 8, 9, 128})
          for (const bool rejects : {false, true})
            sizes.push_back({1, rows, pool_rows, columns, k, rejects});
  for (const int64_t batches : {2, 1000}) sizes.push_back({batches, 300, 5000, 40, 1, false});
  return sizes;
}

// Those that a filter may be asked for.
std::vector<SearchSize> filtered_sizes() {
  std::vector<SearchSize> sizes = many_sizes();
  std::erase_if(sizes,
                [](const SearchSize& s) { return s.columns > naign::largest_integer_columns; });
  return sizes;
}

FilterPlan filter_of(const SearchSize& size, int64_t capacity = 0, int64_t rows_seen = 0) {
  return plan_filter(size, filter_limits(size, capacity), rows_seen, true);
}

// ------------------------------------------------------------------------------------------------

void memory_is_bounded_whatever_the_size() {
  std::vector<SearchSize> sizes = filtered_sizes();
  for (const int64_t k : {1, 128}) {
    for (const auto& [rows, pool_rows, columns] : {std::array<int64_t, 3>{1, 1, 33},
                                                   {100, 10000, 12288},
                                                   {4096, 262144, 1024},
                                                   {60000, 100000, 784},
                                                   {million, million, 64},
                                                   {300, 100 * million, 60000}}) {
      sizes.push_back({1, rows, pool_rows, columns, k, false});
    }
  }
  for (const SearchSize& size : sizes) {
    const FilterPlan plan = filter_of(size);
    const FilterLimits& limits = plan.limits;
    const int64_t row_bytes = ceil_div(size.columns, 128) * 128;
    const int64_t pool_bytes = limits.chunk_rows * (row_bytes * (limits.parts == 2 ? 1 : 2) + 32);
    const int64_t query_bytes = limits.group_rows * (2 * row_bytes + 8 * limits.capacity + 64);
    expect(query_bytes + pool_bytes <= 256 << 20, size);
    expect(plan.layout.bytes <= 256 << 20, size);
    expect(limits.group_rows % 128 == 0 && limits.group_rows >= 128, size);
    expect(limits.chunk_rows % 256 == 0 && limits.chunk_rows >= 256, size);
    expect(limits.capacity >= 128 && limits.capacity <= largest_capacity, size);
  }
}

void chunks_grow_with_what_was_seen() {
  for (const SearchSize& size : filtered_sizes()) {
    const FilterPlan plan = filter_of(size);
    const FilterLimits& limits = plan.limits;
    for (const Range& chunk : plan.chunks) {
      const int64_t seen = chunk.first;
      const int64_t most =
          seen > 0 ? std::max(limits.seed_rows, limits.growth * seen) : limits.first_rows;
      expect(chunk.rows <= most && chunk.rows <= limits.chunk_rows, size);
      // Bounds from the seed need as many groups as neighbours.
      expect(seen > 0 || chunk.rows == size.pool_rows || chunk.rows == limits.chunk_rows ||
                 seed_groups(std::min(chunk.rows, limits.seed_rows)) >= size.k,
             size);
    }
  }
}

void a_small_pool_and_few_rows_are_one_chunk() {
  for (const auto& [rows, pool_rows, columns, k, first] :
       {std::array<int64_t, 5>{100, 10000, 12288, 1, 10000},
        {2048, 32768, 64, 1, 32768},
        {100, 40000, 12288, 1, 2048},
        {2049, 10000, 64, 1, 2048},
        {100, 10000, 12288, 2, 2048}}) {
    const SearchSize size{1, rows, pool_rows, columns, k, false};
    expect(filter_of(size).chunks.front().rows == first, size);
  }
}

bool covers(const std::vector<Range>& ranges, int64_t total) {
  int64_t at = 0;
  for (const Range& range : ranges) {
    if (range.first != at || range.rows <= 0) return false;
    at += range.rows;
  }
  return at == total;
}

void groups_and_chunks_cover_all_rows_once() {
  for (const SearchSize& size : filtered_sizes()) {
    for (const int64_t rows_seen : {0, 300, 100000}) {
      const FilterPlan plan = filter_of(size, 0, rows_seen);
      expect(covers(plan.groups, size.rows), size);
      expect(covers(plan.chunks, size.pool_rows), size);
      expect(plan.seeds == (rows_seen == 0), size);
      for (const Range& group : plan.groups) {
        expect(group.first % panel_rows == 0 && group.rows <= plan.limits.group_rows, size);
      }
    }
  }
}

void parts_cover_a_chunk_and_have_room() {
  for (const SearchSize& size : filtered_sizes()) {
    const FilterPlan plan = filter_of(size);
    const int64_t row_bytes = slabs_of(size.columns) * slab_bytes;
    for (const Range& chunk : plan.chunks) {
      const int64_t part_rows = plan.limits.part_rows(chunk.rows);
      expect(ceil_div(chunk.rows, part_rows) <= Counters::most_parts, size);
      expect(part_rows % widest_tile == 0, size);
      // Each writes the panels of whole tiles, and rows of two digits.
      const int64_t last = (ceil_div(chunk.rows, part_rows) - 1) * part_rows;
      expect((last + part_rows) / panel_rows <= plan.layout.panels_again.count, size);
      expect(2 * part_rows * row_bytes <= plan.layout.values.count, size);
      expect(round_to(chunk.rows, widest_tile) * row_bytes <= plan.layout.values.count, size);
      expect(round_to(chunk.rows, widest_tile) <= plan.layout.columns.count, size);
    }
  }
}

void the_seed_has_room_where_the_lists_are() {
  for (const SearchSize& size : filtered_sizes()) {
    for (const int64_t capacity : {0, 1, 7}) {
      const FilterPlan plan = filter_of(size, capacity);
      const int64_t rows = std::min(plan.chunks.front().rows, plan.limits.seed_rows);
      const auto floats = static_cast<int64_t>(sizeof(Candidate) / sizeof(float));
      expect(plan.groups.front().rows * seed_groups(rows) <= floats * plan.layout.lists.count,
             size);
      expect(plan.limits.group_rows * plan.limits.capacity <= plan.layout.lists.count, size);
    }
  }
}

void no_two_threads_share_a_group_of_the_seed() {
  std::vector<int64_t> members(seed_groups(640));
  for (int64_t row = 0; row < 640; ++row) {
    const int64_t group = seed_group_of(row);
    expect(group >= 0 && group < seed_groups(640), {});
    // One strip, and one lane in four.
    expect(group / 4 == row / seed_strip_rows && group % 4 == row % 8 / 2, {});
    ++members[group];
  }
  for (const int64_t count : members) expect(count == seed_group_rows, {});
}

// ------------------------------------------------------------------------------------------------

struct Span {
  int64_t first;
  int64_t bytes;
};

template <class... Regions>
std::vector<Span> spans_of(const Regions&... regions) {
  const auto span = []<class T>(const Region<T>& region) {
    return Span{region.offset, region.count * static_cast<int64_t>(sizeof(T))};
  };
  return {span(regions)...};
}

// Pieces lie one after the other at multiples of 256 and fill the buffer but for less than 256
// bytes each: none overlap, and none is missing from the list.
bool fill(std::vector<Span> spans, int64_t bytes) {
  std::erase_if(spans, [](const Span& span) { return span.bytes == 0; });
  std::sort(spans.begin(), spans.end(),
            [](const Span& a, const Span& b) { return a.first < b.first; });
  int64_t end = 0;
  for (const Span& span : spans) {
    if (span.first != end || span.first % 256 != 0) return false;
    end = round_to(span.first + span.bytes, 256);
  }
  return end == bytes;
}

std::vector<Span> spans_of(const FilterLayout& l) {
  return spans_of(l.bound, l.counts, l.lists, l.locks, l.overflow, l.exact, l.queries,
                  l.query_values, l.counters, l.panels, l.panels_again, l.columns, l.row_bounds,
                  l.out_of_range, l.values);
}

bool fill(const PackedLayout& l) {
  return fill(spans_of(l.frame, l.centre, l.largest, l.queries, l.values), l.bytes);
}

bool fill(const UpdatePlan& plan) {
  if (filters(plan.method)) return fill(spans_of(plan.filter.layout), plan.bytes());
  if (plan.method == Method::columns) {
    return fill(spans_of(plan.columns.distances, plan.columns.indices), plan.bytes());
  }
  return fill(spans_of(plan.exact.locks), plan.bytes());
}

void pieces_of_the_workspace_do_not_overlap() {
  for (const SearchSize& size : many_sizes()) {
    for (const Device& device : devices) {
      expect(fill(packed_layout(size.rows, size.columns)), size);
      expect(fill(plan_update(size, 0, device)), size);
      const SearchPlan plan = plan_search(size, device);
      if (plan.at_once) continue;
      expect(fill(plan.update), size);
      expect(plan.packed.count == plan.packed_layout.bytes, size);
      std::vector<Span> spans = spans_of(plan.distances, plan.packed);
      spans.push_back({plan.update_offset(), plan.update.bytes()});
      expect(fill(spans, plan.bytes()), size);
    }
  }
}

void what_is_zeroed_ends_where_the_next_piece_begins() {
  for (const SearchSize& size : filtered_sizes()) {
    const FilterLayout layout = filter_of(size).layout;
    const int64_t end = layout.counters.offset + layout.zeroed_bytes();
    for (const Span& span : spans_of(layout.counters, layout.panels, layout.panels_again)) {
      expect(span.first >= layout.counters.offset && span.first + span.bytes <= end, size);
    }
    for (const Span& span : spans_of(layout)) {
      const bool zeroed = span.first >= layout.counters.offset && span.first < end;
      const bool meant = span.first == layout.counters.offset ||
                         span.first == layout.panels.offset ||
                         span.first == layout.panels_again.offset;
      expect(zeroed == meant, size);
    }
  }
}

void checks_of_pieces_can_fail() {
  expect(!fill({{0, 300}, {256, 10}}, 512), {});
  expect(!fill({{0, 300}, {768, 10}}, 1024), {});
  expect(!fill({{0, 300}}, 768), {});
  expect(!covers({{0, 5}, {4, 6}}, 10) && !covers({{0, 5}}, 10) && !covers({{0, 5}, {5, 0}}, 5),
         {});
}

// ------------------------------------------------------------------------------------------------

void the_exact_comparison_covers_the_pool() {
  for (const SearchSize& size : many_sizes()) {
    for (const Device& device : devices) {
      SearchSize one = size;
      one.batches = 1;
      const SearchPlan plan = plan_search(size, device, Method::exact);
      if (plan.at_once) {
        expect(plan.bytes() == 0, size);
        continue;
      }
      const ExactPlan& exact = plan.update.exact;
      expect(exact.segment_rows * exact.segments >= size.pool_rows, size);
      expect(exact.segment_rows * (exact.segments - 1) < size.pool_rows, size);
      expect(exact.locks.count == (exact.segments > 1 ? size.rows : 0), size);
      expect(exact.segment_rows >= 256 && exact.segment_rows % exact_round_rows == 0, size);
    }
  }
}

void the_comparison_by_columns_has_no_empty_share() {
  for (const SearchSize& size : many_sizes()) {
    if (size.columns > largest_columns_by_thread) continue;
    for (const Device& device : devices) {
      const ColumnsPlan plan = plan_search(size, device, Method::columns).update.columns;
      expect(plan.shares >= 1 && plan.shares <= size.pool_rows && plan.shares <= 65535, size);
      expect(plan.distances.count == (plan.shares > 1 ? plan.shares * size.rows * size.k : 0),
             size);
      expect(plan.indices.count == plan.distances.count, size);
      expect(plan.bytes <= (64 << 20) + 512, size);
    }
  }
}

void the_method_suits_the_device() {
  for (const SearchSize& size : many_sizes()) {
    for (const Device& device : devices) {
      const Method method = method_of(size, device);
      const bool may = device.major >= 8 && size.columns > 32 && size.columns <= 60000;
      expect(method != Method::automatic && method != Method::filter_by_mma, size);
      expect(!filters(method) || may, size);
      expect(method != Method::columns || size.columns <= 32, size);
      // Where data are not packed, no update filters.
      expect(!filters(method) || packs(size.rows, size.columns, device), size);
      const UpdatePlan update = plan_update(size, 0, device);
      expect(update.method == method && update.supported, size);
      expect(!filters(method) || update.filter.by_wgmma == (device.major == 9), size);
      expect(update.filter.tightens == (filters(method) && size.k == 1 && !size.rejects), size);
    }
  }
}

void a_larger_pool_is_never_compared_exactly_again() {
  for (const SearchSize& size : many_sizes()) {
    SearchSize larger = size;
    larger.pool_rows *= 3;
    const Method method = method_of(size, hopper);
    expect(method == Method::exact || method_of(larger, hopper) == method, size);
  }
}

void a_filter_needs_a_device_that_has_it() {
  const SearchSize size{1, 5, 50, 40, 1, false};
  for (const Method method : {Method::filter, Method::filter_by_mma}) {
    for (const Device& device : devices) {
      const UpdatePlan plan = plan_search(size, device, method).update;
      expect(plan.supported == (device.major >= 8), size);
      expect(plan.filter.by_wgmma == (device.major == 9 && method == Method::filter), size);
    }
  }
}

void packed_data_grow_with_rows_and_columns() {
  for (const SearchSize& size : many_sizes()) {
    const int64_t bytes = packed_layout(size.rows, size.columns).bytes;
    expect(bytes >= round_to(size.rows, 128) * round_to(size.columns, 128), size);
    expect(packed_layout(size.rows + 128, size.columns).bytes > bytes, size);
    expect(packed_layout(size.rows, size.columns + 128).bytes > bytes, size);
    expect(packed_layout(size.rows + 1, size.columns).bytes >= bytes, size);
    expect(packed_layout(size.rows, size.columns + 1).bytes >= bytes, size);
  }
}

void lists_shorten_with_rows_and_lengthen_with_k() {
  for (const SearchSize& size : filtered_sizes()) {
    SearchSize more_rows = size, more_k = size;
    more_rows.rows *= 2;
    more_k.k = std::min(size.k * 2, largest_k);
    const int64_t capacity = filter_limits(size).capacity;
    expect(filter_limits(more_rows).capacity <= capacity, size);
    expect(filter_limits(more_k).capacity >= capacity, size);
    expect(filter_limits(size, 3).capacity == 3, size);
  }
}

// ------------------------------------------------------------------------------------------------

void every_tile_is_taken_once() {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {16, 5}, {17, 3}, {5, 40}, {33, 2}}) {
    const Tiles tiles{rows, columns};
    std::set<std::pair<int64_t, int64_t>> found;
    for (int64_t tile = 0; tile < tiles.count(); ++tile) {
      int64_t row, column;
      tiles.at(tile, row, column);
      expect(row >= 0 && row < rows && column >= 0 && column < columns, {});
      found.emplace(row, column);
    }
    expect(tiles.count() == rows * columns, {});
    expect(static_cast<int64_t>(found.size()) == rows * columns, {});
  }
}

void every_byte_of_packed_rows_has_a_place_of_its_own() {
  constexpr int64_t rows = 256, slabs = 3;
  std::vector<bool> taken(rows * slabs * slab_bytes);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t byte = 0; byte < slabs * slab_bytes; ++byte) {
      const int64_t at = packed_offset(row, byte, slabs);
      expect(at >= 0 && at < rows * slabs * slab_bytes && !taken[at], {});
      taken[at] = true;
      // Pieces of 16 bytes stay whole.
      expect(at % 16 == byte % 16, {});
    }
  }
}

template <int digits>
void expect_all_products(int slabs) {
  const Slabs<digits> slab{slabs};
  std::vector<int64_t> weight(slabs * digits * slabs * digits);
  for (int i = 0; i < slab.count(); ++i) {
    if (slab.shifts_before(i)) {
      for (int64_t& w : weight) w *= 128;
    }
    ++weight[slab.query(i) * slabs * digits + slab.pool(i)];
  }
  // Slab s of a digit of one side meets slab s of each digit of the other, a high digit counting
  // 128 times.
  for (int query = 0; query < slabs * digits; ++query) {
    for (int pool = 0; pool < slabs * digits; ++pool) {
      int64_t expected = query % slabs == pool % slabs ? 1 : 0;
      if (digits == 2 && query < slabs) expected *= 128;
      if (digits == 2 && pool < slabs) expected *= 128;
      expect(weight[query * slabs * digits + pool] == expected, {});
    }
  }
  for (int i = 0; i < slab.count(); ++i) {
    expect(slab.last_of_row(i) == (slab.query(i) % slabs == slabs - 1), {});
  }
}

void the_products_of_digits_make_up_the_product_of_rows() {
  for (const int slabs : {1, 2, 5}) {
    expect_all_products<1>(slabs);
    expect_all_products<2>(slabs);
  }
}

void digits_are_bytes_and_add_up() {
  const auto most = static_cast<int>(levels_of(2).value);
  for (int value = -most; value <= most; ++value) {
    const int high = high_digit(value), low = low_digit(value);
    expect(128 * high + low == value && high >= -127 && high <= 127 && low >= -64 && low < 64, {});
  }
}

const std::vector<std::pair<const char*, std::function<void()>>> checks{
    {"memory_is_bounded_whatever_the_size", memory_is_bounded_whatever_the_size},
    {"chunks_grow_with_what_was_seen", chunks_grow_with_what_was_seen},
    {"a_small_pool_and_few_rows_are_one_chunk", a_small_pool_and_few_rows_are_one_chunk},
    {"groups_and_chunks_cover_all_rows_once", groups_and_chunks_cover_all_rows_once},
    {"parts_cover_a_chunk_and_have_room", parts_cover_a_chunk_and_have_room},
    {"the_seed_has_room_where_the_lists_are", the_seed_has_room_where_the_lists_are},
    {"no_two_threads_share_a_group_of_the_seed", no_two_threads_share_a_group_of_the_seed},
    {"pieces_of_the_workspace_do_not_overlap", pieces_of_the_workspace_do_not_overlap},
    {"what_is_zeroed_ends_where_the_next_piece_begins",
     what_is_zeroed_ends_where_the_next_piece_begins},
    {"checks_of_pieces_can_fail", checks_of_pieces_can_fail},
    {"the_exact_comparison_covers_the_pool", the_exact_comparison_covers_the_pool},
    {"the_comparison_by_columns_has_no_empty_share", the_comparison_by_columns_has_no_empty_share},
    {"the_method_suits_the_device", the_method_suits_the_device},
    {"a_larger_pool_is_never_compared_exactly_again",
     a_larger_pool_is_never_compared_exactly_again},
    {"a_filter_needs_a_device_that_has_it", a_filter_needs_a_device_that_has_it},
    {"packed_data_grow_with_rows_and_columns", packed_data_grow_with_rows_and_columns},
    {"lists_shorten_with_rows_and_lengthen_with_k", lists_shorten_with_rows_and_lengthen_with_k},
    {"every_tile_is_taken_once", every_tile_is_taken_once},
    {"every_byte_of_packed_rows_has_a_place_of_its_own",
     every_byte_of_packed_rows_has_a_place_of_its_own},
    {"the_products_of_digits_make_up_the_product_of_rows",
     the_products_of_digits_make_up_the_product_of_rows},
    {"digits_are_bytes_and_add_up", digits_are_bytes_and_add_up},
};

}  // namespace

int main() {
  for (const auto& [name, check] : checks) {
    wrong.clear();
    check();
    std::printf("%s: %s\n", name, wrong.empty() ? "ok" : wrong.c_str());
  }
}
