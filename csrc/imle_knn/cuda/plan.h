// What a search on a device will do, decided from sizes and the device alone: the method, groups of
// data rows, chunks of the pool, and where everything lies in the workspace. Plain numbers made on
// the host; search.cu queues what they say.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "imle_knn/cuda/packing.h"

namespace naign::cuda {

// More neighbours are not supported: a block keeps those of a data row in shared memory.
constexpr int64_t largest_k = 128;
// Longer rows are not compared by threads that hold a data row each.
constexpr int64_t largest_columns_by_thread = 32;
// Candidates that the filter keeps of a data row, at most.
constexpr int64_t largest_capacity = 1024;

// Data rows of a block that compares few columns, and pool rows that a block compares exactly at a
// time.
constexpr int64_t columns_block_rows = 128;
constexpr int64_t exact_round_rows = 32;

// Pool rows of the widest tile; the rows of a chunk are padded to a multiple of it.
constexpr int64_t widest_tile = 256;
// Smallest scores are collected for this many pool rows each: every fourth pair of a strip's.
constexpr int64_t seed_group_rows = 16;
constexpr int64_t seed_strip_rows = 64;
// Rows of each side from which centre and scale are taken.
constexpr int64_t frame_samples = 64;

// Groups of a data row, and the one to which a pool row belongs. A strip belongs to one warp, a
// group to one lane in four: no two threads write the same group.
constexpr int64_t seed_groups(int64_t pool_rows) {
  return ceil_div(pool_rows, seed_strip_rows) * (seed_strip_rows / seed_group_rows);
}
NAIGN_HOST_DEVICE constexpr int64_t seed_group_of(int64_t pool_row) {
  return pool_row / seed_strip_rows * (seed_strip_rows / seed_group_rows) + pool_row / 2 % 4;
}

constexpr int64_t round_to(int64_t value, int64_t multiple) {
  return ceil_div(value, multiple) * multiple;
}

// ------------------------------------------------------------------------------------------------

// What a plan depends on of a device.
struct Device {
  int multiprocessors = 1;
  int major = 0;  // of the compute capability

  // Ampere and later; before_ampere says why.
  bool has_filter() const { return major >= 8; }
  bool has_wgmma() const { return major == 9; }
};

// How a search goes about it. Tests force each way; the answer is the same.
enum class Method : int32_t {
  automatic,
  filter,         // compute capability 8.0 and higher: cudaErrorNotSupported elsewhere
  filter_by_mma,  // with the instructions of Ampere, also where Hopper's are there
  columns,        // at most largest_columns_by_thread
  exact
};

inline bool filters(Method method) {
  return method == Method::filter || method == Method::filter_by_mma;
}

struct SearchSize {
  int64_t batches;
  int64_t rows;  // of data, a batch
  int64_t pool_rows;
  int64_t columns;
  int64_t k;
  bool rejects;  // pairs nearer than a threshold are inadmissible
};

// The way that `automatic` stands for on a device: without tensor cores for 8-bit integers (before
// compute capability 8.0), for few or short rows and small problems, differences only.
Method method_of(const SearchSize& size, const Device& device);

// ------------------------------------------------------------------------------------------------

// A piece of a buffer.
template <class T>
struct Region {
  int64_t offset = 0;  // bytes
  int64_t count = 0;

  T* in(void* buffer) const { return reinterpret_cast<T*>(static_cast<char*>(buffer) + offset); }
};

// Hands out the pieces of a buffer one after the other.
class Layout {
 public:
  static constexpr int64_t alignment = 256;

  template <class T>
  void place(Region<T>& region, int64_t count) {
    region = {bytes_, count};
    bytes_ += round_to(count * static_cast<int64_t>(sizeof(T)), alignment);
  }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

// Data rows as the filter reads them, in a buffer of their own.
struct PackedLayout {
  Region<Frame> frame;
  Region<float> centre;
  Region<float> largest;  // of sampled rows
  Region<PackedQuery> queries;
  Region<int8_t> values;
  int64_t bytes = 0;
};
PackedLayout packed_layout(int64_t rows, int64_t columns);

// Whether updates may filter, whatever the pool; otherwise data are not packed.
bool packs(int64_t rows, int64_t columns, const Device& device);

// ------------------------------------------------------------------------------------------------

// How the filter cuts its work: memory stays bounded whatever the sizes.
struct FilterLimits {
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
  int64_t part_rows(int64_t rows) const { return round_to(ceil_div(rows, parts), widest_tile); }
};

// `capacity` 0: what suits the sizes.
FilterLimits filter_limits(const SearchSize& size, int64_t capacity = 0);

struct Range {
  int64_t first;
  int64_t rows;
};

// Zeroed before every chunk, together with the panels that follow them.
struct Counters {
  static constexpr int64_t most_parts = 2;
  int32_t overflow;
  int32_t exact;
  int32_t out_of_range;
  int32_t out_of_range_again[most_parts];
};

// What a group of data rows and a chunk need.
struct FilterLayout {
  Region<double> bound;
  Region<uint32_t> counts;
  Region<Candidate> lists;
  Region<int32_t> locks;
  Region<int32_t> overflow;
  Region<int32_t> exact;  // rows out of range, and every part's overflow
  Region<PackedQuery> queries;
  Region<int8_t> query_values;
  Region<Counters> counters;
  Region<RowBound> panels;        // one digit
  Region<RowBound> panels_again;  // two digits
  Region<PoolColumn> columns;
  Region<RowBound> row_bounds;
  Region<int32_t> out_of_range;
  Region<int8_t> values;
  int64_t bytes = 0;

  int64_t zeroed_bytes() const { return columns.offset - counters.offset; }
};

// A tile's integer products on the tensor cores, and what they leave over compared exactly.
struct FilterPlan {
  bool by_wgmma = false;
  bool tightens = false;  // a score may lower its data row's bound
  FilterLimits limits{};
  std::vector<Range> groups;  // of data rows
  std::vector<Range> chunks;  // of pool rows
  bool seeds = false;         // the first chunk begins with the seed
  FilterLayout layout;
};
FilterPlan plan_filter(const SearchSize& size, const FilterLimits& limits, int64_t rows_seen,
                       bool by_wgmma);

// Every pair compared exactly; the pool is cut so that the whole device works.
struct ExactPlan {
  int64_t segment_rows = 0;
  int64_t segments = 0;
  Region<int32_t> locks;  // of data rows, where there are several segments
  int64_t bytes = 0;
};

// A thread for each data row and share of the pool.
struct ColumnsPlan {
  int64_t shares = 0;
  Region<double> distances;  // of every share, where there are several
  Region<int64_t> indices;
  int64_t bytes = 0;
};

// Pool rows taken into a running result. Only the method's own plan says something.
struct UpdatePlan {
  Device device;
  Method method = Method::exact;
  bool supported = true;
  FilterPlan filter;
  ColumnsPlan columns;
  ExactPlan exact;

  int64_t bytes() const {
    if (filters(method)) return filter.layout.bytes;
    return method == Method::columns ? columns.bytes : exact.bytes;
  }
};
// rows_seen: pool rows that are in the result already.
UpdatePlan plan_update(const SearchSize& size, int64_t rows_seen, const Device& device);

// A whole search, one batch after the other in the same memory.
struct SearchPlan {
  bool at_once = false;  // all batches in one launch of the exact comparison, without memory
  Region<double> distances;
  Region<char> packed;
  PackedLayout packed_layout;  // within `packed`
  UpdatePlan update;           // behind both

  int64_t update_offset() const {
    return packed.offset + round_to(packed.count, Layout::alignment);
  }
  int64_t bytes() const { return at_once ? 0 : update_offset() + update.bytes(); }
};
SearchPlan plan_search(const SearchSize& size, const Device& device,
                       Method method = Method::automatic, int64_t capacity = 0);

}  // namespace naign::cuda
