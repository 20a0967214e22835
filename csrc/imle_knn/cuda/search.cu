// Exact search on a CUDA device.
//
// A pair is first compared by its rows' 8-bit integers on the tensor cores. The sum gives a score,
// and with the rows' measured errors an interval that holds the distance (docs/exactness.md). Pairs
// whose interval lies above the data row's bound are dropped in the epilogue, the rest go to a
// short list of the data row and are compared as the contract defines it. For every chunk of the
// pool:
//
//   1. pack_rows      float rows -> integers, errors, norms       reads 4 D, writes D bytes a row
//   2. run_filter     integer products, test, lists               D / 32 matrix steps a tile
//      on the pool's first rows: smallest scores -> seed_bounds
//   3. rerank         survivors in the order of their scores      8 D bytes each
//   4. rows whose list overflowed: steps 1 to 3 again with two digits a value (16-bit integers in
//      four products), for them alone; what overflows again, and rows out of range: compare_exactly
//
// Kernels of step 4 read how much there is to do from the device and end at once if it is nothing,
// so the host never waits. The bounds only ever fall; the answer is the smallest (distance, index)
// whatever the order in which pairs were found. Chunks grow with the rows seen, so that lists hold
// what a chunk can add.
//
// What to expect on an H200 (132 multiprocessors, 4096 int8 products a clock each): a tile of 128 x
// 256 pairs takes 256 clocks of the tensor cores for each 32 columns, and about 1000 clocks of the
// other units for its epilogue (a conversion, a product, a multiply-add and a minimum a pair; the
// conversion and the minimum run at half rate), during which the copies go on but the tensor cores
// wait. D = 1024: 8192 + 1000, at most 89 % of the int8 rate; D = 784: 6400 + 1000, 86 %; D = 64:
// 512 + 1000, 34 %, that is 22 pairs a clock, where the epilogue is the limit. Copies need 48 bytes
// a clock and multiprocessor from the second-level cache at the full rate, which no unclustered
// kernel has been seen to get: two thirds of the rate is the expectation for long rows.
#include "imle_knn/cuda/search.h"

#include <algorithm>

#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/plan.h"

namespace naign::cuda {
namespace {

// Hands out pieces of a buffer; with no buffer, only counts.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    constexpr int64_t alignment = 256;
    char* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += round_to(count * static_cast<int64_t>(sizeof(T)), alignment);
    return reinterpret_cast<T*>(at);
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// The caller's buffer of packed data.
struct PackedData {
  Frame* frame;
  float* centre;
  float* largest;  // of sampled rows
  PackedQuery* queries;
  int8_t* values;

  PackedData(Arena& arena, int64_t rows, int64_t columns)
      : frame(arena.take<Frame>(1)),
        centre(arena.take<float>(slabs_of(columns) * slab_bytes)),
        largest(arena.take<float>(2 * frame_samples)),
        queries(arena.take<PackedQuery>(round_to(rows, panel_rows))),
        values(arena.take<int8_t>(round_to(rows, panel_rows) * slabs_of(columns) * slab_bytes)) {}
};

// Zeroed before every chunk, together with the panels that follow them.
struct Counters {
  int32_t overflow;
  int32_t exact;
  int32_t wild;
  int32_t wild_again[2];  // a part each
};

// Everything that a chunk and a group of data rows need.
struct Workspace {
  double* bound;
  uint32_t* counts;
  Candidate* lists;
  int32_t* locks;
  int32_t* overflow;
  int32_t* exact;  // wild rows, and every part's overflow
  PackedQuery* queries;
  int8_t* query_values;
  Counters* counters;
  RowBound* panels;        // one digit
  RowBound* panels_again;  // two digits
  PoolColumn* columns;
  RowBound* row_bounds;
  int32_t* wild;
  int8_t* values;
  int64_t zeroed_bytes;

  static constexpr int64_t most_parts = 2;

  Workspace(Arena& arena, const Plan& plan, int64_t columns) {
    const int64_t row_bytes = slabs_of(columns) * slab_bytes;
    bound = arena.take<double>(plan.group_rows);
    counts = arena.take<uint32_t>(plan.group_rows);
    lists = arena.take<Candidate>(std::max(plan.group_rows * plan.capacity,
                                           plan.group_rows * plan.seed_rows / seed_group_rows / 2));
    locks = arena.take<int32_t>(plan.group_rows);
    overflow = arena.take<int32_t>(plan.group_rows);
    exact = arena.take<int32_t>(plan.group_rows * (1 + most_parts));
    queries = arena.take<PackedQuery>(plan.group_rows);
    query_values = arena.take<int8_t>(plan.group_rows * 2 * row_bytes);
    const int64_t before = arena.used();
    counters = arena.take<Counters>(1);
    panels = arena.take<RowBound>(plan.chunk_rows / panel_rows);
    panels_again = arena.take<RowBound>(plan.chunk_rows / panel_rows + 2 * most_parts);
    zeroed_bytes = arena.used() - before;
    columns_and_rows(arena, plan.chunk_rows);
    const int64_t part_rows = round_to(ceil_div(plan.chunk_rows, plan.parts), chunk_multiple);
    values = arena.take<int8_t>(std::max(plan.chunk_rows, 2 * part_rows) * row_bytes);
  }

 private:
  void columns_and_rows(Arena& arena, int64_t rows) {
    columns = arena.take<PoolColumn>(rows);
    row_bounds = arena.take<RowBound>(rows);
    wild = arena.take<int32_t>(rows);
  }
};

struct Machine {
  int multiprocessors = 1;
  bool has_filter = false;  // Ampere and later; before_ampere says why
  bool has_wgmma = false;

  static Machine current() {
    Machine machine;
    int device = 0;
    int major = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&machine.multiprocessors, cudaDevAttrMultiProcessorCount, device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    machine.has_filter = major >= 8;
    machine.has_wgmma = major == 9;
    return machine;
  }
};

Matrix rows_of(const Matrix& matrix, int64_t first, int64_t count) {
  Matrix part = matrix;
  part.values = matrix.row(first);
  part.rows = count;
  return part;
}

// A group of data rows against the pool, chunk by chunk.
class GroupSearch {
 public:
  GroupSearch(const Matrix& data, const PackedData& packed, int64_t first, const Plan& plan,
              const PoolRange& pool, const Neighbours& result, const Workspace& workspace,
              const Machine& machine, cudaStream_t stream)
      : plan_(plan),
        pool_(pool),
        w_(workspace),
        machine_(machine),
        stream_(stream),
        data_(rows_of(data, first, std::min(plan.group_rows, data.rows - first))),
        result_{result.distances + first * result.k, result.indices + first * result.k, data_.rows,
                result.k},
        frame_(packed.frame),
        centre_(packed.centre),
        queries_(packed.queries + first),
        values_(packed.values + first * slabs_of(data.columns) * slab_bytes),
        slabs_(static_cast<int32_t>(slabs_of(data.columns))),
        bounds_(Bounds::of_integers(data.columns, data.columns)) {}

  void run(int64_t rows_seen) {
    cudaMemsetAsync(w_.counts, 0, plan_.group_rows * sizeof(uint32_t), stream_);
    cudaMemsetAsync(w_.locks, 0, plan_.group_rows * sizeof(int32_t), stream_);
    worst_of(result_, w_.bound, stream_);
    for (int64_t at = 0; at < pool_.rows.rows;) {
      const int64_t count = plan_.next_chunk(rows_seen + at, pool_.rows.rows - at);
      run_chunk(at, count, rows_seen + at == 0);
      at += count;
    }
  }

 private:
  void run_chunk(int64_t first, int64_t count, bool seeds) {
    cudaMemsetAsync(w_.counters, 0, w_.zeroed_bytes, stream_);
    const Matrix chunk = rows_of(pool_.rows, first, count);
    const int64_t index = pool_.first_index + first;
    pack_pool(chunk, 1, w_.panels, &w_.counters->wild, nullptr);
    FilterProblem filter = filter_of(count, 1, w_.panels);
    if (seeds) seed(filter);
    run_filter(filter);
    RerankProblem survivors = rerank_of(chunk, index);
    survivors.overflow = w_.overflow;
    survivors.overflow_count = &w_.counters->overflow;
    rerank(survivors, stream_);
    run_overflow(chunk, index);
    run_exact(chunk, index);
  }

  void seed(FilterProblem filter) {
    filter.pool_rows = static_cast<int32_t>(std::min<int64_t>(filter.pool_rows, plan_.seed_rows));
    filter.groups = reinterpret_cast<float*>(w_.lists);
    filter.groups_per_row = static_cast<int32_t>(seed_groups(filter.pool_rows));
    run_filter(filter);
    seed_bounds({queries_, w_.panels, static_cast<int32_t>(ceil_div(filter.pool_rows, panel_rows)),
                 filter.groups, filter.groups_per_row, static_cast<int32_t>(data_.rows),
                 static_cast<int32_t>(result_.k), frame_, bounds_, w_.bound},
                stream_);
  }

  // Data rows with too many candidates: the same with two digits, which leaves far fewer.
  void run_overflow(const Matrix& chunk, int64_t index) {
    const Selection rows{w_.overflow, &w_.counters->overflow, static_cast<int32_t>(data_.rows)};
    PackProblem pack = pack_of(data_, 2, w_.query_values);
    pack.selection = rows;
    pack.padded_rows = round_to(data_.rows, panel_rows);
    pack.queries = w_.queries;
    pack_rows(pack, stream_);
    const int64_t part_rows = round_to(ceil_div(chunk.rows, plan_.parts), chunk_multiple);
    for (int64_t first = 0; first < chunk.rows; first += part_rows) {
      const Matrix part = rows_of(chunk, first, std::min(part_rows, chunk.rows - first));
      RowBound* panels = w_.panels_again + first / panel_rows;
      int32_t* wild = w_.counters->wild_again + first / part_rows;
      pack_pool(part, 2, panels, wild, rows.count);
      FilterProblem filter = filter_of(part.rows, 2, panels);
      filter.query_values = w_.query_values;
      filter.queries = w_.queries;
      filter.ids = rows.ids;
      filter.count = rows.count;
      run_filter(filter);
      RerankProblem survivors = rerank_of(part, index + first);
      survivors.selection = rows;
      survivors.queries = w_.queries;
      survivors.wild_count = wild;
      survivors.overflow = w_.exact;
      survivors.overflow_count = &w_.counters->exact;
      rerank(survivors, stream_);
    }
  }

  void run_exact(const Matrix& chunk, int64_t index) {
    constexpr int64_t segment_rows = 1024;
    ExactProblem problem{};
    problem.data = data_;
    problem.pool = chunk;
    problem.batches = 1;
    problem.first_index = index;
    problem.reject_below = pool_.reject_below;
    problem.result = result_;
    problem.selection = {w_.exact, &w_.counters->exact,
                         static_cast<int32_t>(data_.rows * (1 + plan_.parts))};
    problem.segment_rows = segment_rows;
    problem.bound = w_.bound;
    problem.locks = w_.locks;
    compare_exactly(problem, machine_.multiprocessors, stream_);
  }

  void run_filter(const FilterProblem& problem) {
    const auto run = machine_.has_wgmma ? run_filter_sm90 : run_filter_sm80;
    run(problem, machine_.multiprocessors, stream_);
  }

  PackProblem pack_of(const Matrix& rows, int digits, int8_t* values) const {
    PackProblem problem{};
    problem.rows = rows;
    problem.selection = {nullptr, nullptr, static_cast<int32_t>(rows.rows)};
    problem.centre = centre_;
    problem.frame = frame_;
    problem.values = values;
    problem.slabs = slabs_;
    problem.digits = digits;
    return problem;
  }

  void pack_pool(const Matrix& rows, int digits, RowBound* panels, int32_t* wild_count,
                 const int32_t* gate) {
    PackProblem problem = pack_of(rows, digits, w_.values);
    problem.padded_rows = round_to(rows.rows, chunk_multiple);
    problem.columns = w_.columns;
    problem.bounds = w_.row_bounds;
    problem.panels = panels;
    problem.wild = w_.wild;
    problem.wild_count = wild_count;
    problem.gate = gate;
    // The row before is as near, and comes first.
    problem.skips_repeats = result_.k == 1;
    pack_rows(problem, stream_);
  }

  FilterProblem filter_of(int64_t pool_rows, int digits, const RowBound* panels) const {
    const int64_t last = data_.columns - (slabs_ - 1) * slab_bytes;
    FilterProblem problem{};
    problem.query_values = values_;
    problem.queries = queries_;
    problem.rows = static_cast<int32_t>(data_.rows);
    problem.pool_values = w_.values;
    problem.columns = w_.columns;
    problem.panels = panels;
    problem.pool_rows = static_cast<int32_t>(pool_rows);
    problem.slabs = slabs_;
    problem.last_steps = static_cast<int32_t>(ceil_div(last, step_bytes));
    problem.digits = digits;
    problem.frame = frame_;
    problem.bounds = bounds_;
    problem.reject_below = pool_.reject_below;
    problem.bound = w_.bound;
    problem.tightens = result_.k == 1 && !(pool_.reject_below > 0);
    problem.counts = w_.counts;
    problem.lists = w_.lists;
    problem.capacity = static_cast<int32_t>(plan_.capacity);
    return problem;
  }

  RerankProblem rerank_of(const Matrix& pool, int64_t index) const {
    RerankProblem problem{};
    problem.data = data_;
    problem.pool = pool;
    problem.first_index = index;
    problem.reject_below = pool_.reject_below;
    problem.result = result_;
    problem.selection = {nullptr, nullptr, static_cast<int32_t>(data_.rows)};
    problem.queries = queries_;
    problem.row_bounds = w_.row_bounds;
    problem.wild = w_.wild;
    problem.wild_count = &w_.counters->wild;
    problem.frame = frame_;
    problem.bounds = bounds_;
    problem.bound = w_.bound;
    problem.counts = w_.counts;
    problem.lists = w_.lists;
    problem.capacity = static_cast<int32_t>(plan_.capacity);
    problem.exact = w_.exact;
    problem.exact_count = &w_.counters->exact;
    return problem;
  }

  const Plan& plan_;
  const PoolRange& pool_;
  const Workspace& w_;
  const Machine& machine_;
  cudaStream_t stream_;
  Matrix data_;
  Neighbours result_;
  const Frame* frame_;
  const float* centre_;
  const PackedQuery* queries_;
  const int8_t* values_;
  int32_t slabs_;
  Bounds bounds_;
};

// ------------------------------------------------------------------------------------------------

// Comparing this many numbers exactly takes no longer than the filter's many small steps.
constexpr int64_t exact_work = int64_t{1} << 26;
constexpr int64_t few_rows = 4;

bool is_small(int64_t rows, int64_t pool_rows, int64_t columns) {
  return rows * pool_rows * columns <= exact_work;
}

bool may_filter(int64_t columns, const Machine& machine) {
  return machine.has_filter && columns > largest_columns_by_thread &&
         columns <= largest_integer_columns;
}

Method method_for(int64_t batches, int64_t rows, int64_t pool_rows, int64_t columns,
                  const Machine& machine) {
  const bool few = batches == 1 && rows <= few_rows;
  if (few || is_small(rows, pool_rows, columns)) return Method::exact;
  if (columns <= largest_columns_by_thread) return Method::columns;
  return may_filter(columns, machine) ? Method::filter : Method::exact;
}

bool filters(Method method) { return method == Method::filter || method == Method::filter_by_mma; }

// How the exact comparison is spread over the device.
struct Segments {
  int64_t rows;
  int64_t count;

  Segments(int64_t items, int64_t pool_rows, const Machine& machine) {
    constexpr int64_t least = 256;
    const int64_t wanted = ceil_div(8 * machine.multiprocessors, std::max<int64_t>(1, items));
    rows = std::max(least, round_to(ceil_div(pool_rows, wanted), 32));
    count = ceil_div(pool_rows, rows);
  }
};

// Shares of the pool that a data row's comparison by threads is cut into.
int64_t shares_for(int64_t rows, int64_t pool_rows, int64_t k, const Machine& machine) {
  constexpr int64_t partial_memory = int64_t{64} << 20;
  const int64_t blocks = ceil_div(rows, 128);
  const int64_t wanted = ceil_div(8 * machine.multiprocessors, blocks);
  const int64_t fitting = std::max<int64_t>(1, partial_memory / (16 * rows * k));
  return std::min({wanted, fitting, ceil_div(pool_rows, 1024), int64_t{1024}});
}

// Memory of an update, and what runs in it.
class Update {
 public:
  Update(const Matrix& data, const PoolRange& pool, const Neighbours& result, Arena& arena,
         const Machine& machine, int64_t capacity = 0)
      : data_(data),
        pool_(pool),
        result_(result),
        arena_(arena),
        machine_(machine),
        capacity_(capacity) {}

  // Or only counts the memory.
  void run(Method method, const PackedData* packed, int64_t rows_seen, cudaStream_t stream,
           bool counts_only) {
    if (method == Method::exact) return run_exact(stream, counts_only);
    if (method == Method::columns) return run_columns(stream, counts_only);
    const bool tightens = result_.k == 1 && !(pool_.reject_below > 0);
    const Plan plan =
        plan_for(data_.rows, pool_.rows.rows, data_.columns, result_.k, tightens, capacity_);
    const Workspace workspace(arena_, plan, data_.columns);
    if (counts_only) return;
    for (int64_t first = 0; first < data_.rows; first += plan.group_rows) {
      GroupSearch group(data_, *packed, first, plan, pool_, result_, workspace, machine_, stream);
      group.run(rows_seen);
    }
  }

 private:
  void run_exact(cudaStream_t stream, bool counts_only) {
    const Segments segments(data_.rows, pool_.rows.rows, machine_);
    int32_t* locks = segments.count > 1 ? arena_.take<int32_t>(data_.rows) : nullptr;
    if (counts_only) return;
    if (locks != nullptr) cudaMemsetAsync(locks, 0, data_.rows * sizeof(int32_t), stream);
    ExactProblem problem{};
    problem.data = data_;
    problem.pool = pool_.rows;
    problem.batches = 1;
    problem.first_index = pool_.first_index;
    problem.reject_below = pool_.reject_below;
    problem.result = result_;
    problem.selection = {nullptr, nullptr, static_cast<int32_t>(data_.rows)};
    problem.segment_rows = segments.rows;
    problem.locks = locks;
    compare_exactly(problem, machine_.multiprocessors, stream);
  }

  void run_columns(cudaStream_t stream, bool counts_only) {
    const int64_t shares = shares_for(data_.rows, pool_.rows.rows, result_.k, machine_);
    const int64_t entries = shares > 1 ? shares * data_.rows * result_.k : 0;
    const Neighbours partial{arena_.take<double>(entries), arena_.take<int64_t>(entries),
                             shares * data_.rows, result_.k};
    if (counts_only) return;
    compare_few_columns({data_, pool_.rows, pool_.first_index, pool_.reject_below, result_,
                         static_cast<int32_t>(shares), partial},
                        stream);
  }

  const Matrix& data_;
  const PoolRange& pool_;
  const Neighbours& result_;
  Arena& arena_;
  const Machine& machine_;
  int64_t capacity_;
};

int64_t packed_size(int64_t rows, int64_t columns) {
  Arena arena(nullptr);
  const PackedData packed(arena, rows, columns);
  return arena.used();
}

void pack(const Matrix& data, const Matrix& sample, const PackedData& packed, cudaStream_t stream) {
  choose_frame(data, sample, packed.centre, packed.frame, packed.largest, stream);
  PackProblem problem{};
  problem.rows = data;
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(data.rows)};
  problem.padded_rows = round_to(data.rows, panel_rows);
  problem.centre = packed.centre;
  problem.frame = packed.frame;
  problem.values = packed.values;
  problem.slabs = static_cast<int32_t>(slabs_of(data.columns));
  problem.digits = 1;
  problem.queries = packed.queries;
  pack_rows(problem, stream);
}

Matrix batch_of(const Matrix& matrix, int64_t stride, int64_t batch) {
  Matrix part = matrix;
  part.values = static_cast<const char*>(matrix.values) + batch * stride * bytes_of(matrix.dtype);
  return part;
}

// Every batch in one launch, from inputs to outputs.
void search_at_once(const Search& search, float* distances, int64_t* indices, int64_t segment_rows,
                    const Machine& machine, cudaStream_t stream) {
  ExactProblem problem{};
  problem.data = search.data;
  problem.pool = search.pool;
  problem.data_batch_stride = search.data_batch_stride;
  problem.pool_batch_stride = search.pool_batch_stride;
  problem.batches = static_cast<int32_t>(search.batches);
  problem.reject_below = search.reject_below;
  problem.result = {nullptr, indices, search.batches * search.data.rows, search.k};
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(search.data.rows)};
  problem.segment_rows = segment_rows;
  problem.fresh = true;
  problem.rounded = distances;
  compare_exactly(problem, machine.multiprocessors, stream);
}

// Runs a whole search in the memory, or only counts the bytes that it takes.
int64_t run_search(const Search& s, float* distances, int64_t* indices, void* memory,
                   cudaStream_t stream, bool counts_only) {
  Machine machine = Machine::current();
  const Method method = method_of(s);
  machine.has_wgmma &= method != Method::filter_by_mma;
  if (method == Method::exact) {
    const Segments segments(s.batches * s.data.rows, s.pool.rows, machine);
    const bool small_batches = s.batches > 1 && is_small(s.data.rows, s.pool.rows, s.data.columns);
    if (segments.count == 1 || small_batches) {
      if (!counts_only) search_at_once(s, distances, indices, s.pool.rows, machine, stream);
      return 0;
    }
  }
  Arena arena(memory);
  double* exact = arena.take<double>(s.data.rows * s.k);
  Arena packed_arena(
      arena.take<char>(filters(method) ? packed_size(s.data.rows, s.data.columns) : 0));
  const PackedData packed(packed_arena, s.data.rows, s.data.columns);
  const int64_t fixed = arena.used();
  int64_t used = fixed;
  for (int64_t batch = 0; batch < (counts_only ? 1 : s.batches); ++batch) {
    const Matrix data = batch_of(s.data, s.data_batch_stride, batch);
    const PoolRange pool{batch_of(s.pool, s.pool_batch_stride, batch), 0, s.reject_below};
    const int64_t at = batch * s.data.rows * s.k;
    const Neighbours result{exact, indices + at, s.data.rows, s.k};
    Arena rest(counts_only ? nullptr : static_cast<char*>(memory) + fixed);
    Update update(data, pool, result, rest, machine, s.capacity);
    if (!counts_only) {
      clear_neighbours(result, stream);
      if (filters(method)) pack(data, pool.rows, packed, stream);
    }
    update.run(method, &packed, 0, stream, counts_only);
    if (!counts_only) round_distances(data, result, distances + at, stream);
    used = fixed + rest.used();
  }
  return used;
}

}  // namespace

Method method_of(const Search& s) {
  if (s.method != Method::automatic) return s.method;
  return method_for(s.batches, s.data.rows, s.pool.rows, s.data.columns, Machine::current());
}

size_t search_bytes(const Search& search) {
  return static_cast<size_t>(run_search(search, nullptr, nullptr, nullptr, nullptr, true));
}

int search(const Search& search, float* distances, int64_t* indices, void* workspace,
           void* stream) {
  if (filters(method_of(search)) && !Machine::current().has_filter) return cudaErrorNotSupported;
  run_search(search, distances, indices, workspace, static_cast<cudaStream_t>(stream), false);
  return cudaGetLastError();
}

size_t packed_bytes(int64_t rows, int64_t columns) {
  const bool needed = rows > few_rows && may_filter(columns, Machine::current());
  return needed ? static_cast<size_t>(packed_size(rows, columns)) : 0;
}

int pack_data(const Matrix& data, const Matrix& sample, void* buffer, void* stream) {
  if (packed_bytes(data.rows, data.columns) == 0) return cudaSuccess;
  Arena arena(buffer);
  pack(data, sample, PackedData(arena, data.rows, data.columns), static_cast<cudaStream_t>(stream));
  return cudaGetLastError();
}

size_t update_bytes(const Matrix& data, const PoolRange& pool, int64_t k, int64_t rows_seen) {
  const Machine machine = Machine::current();
  const Neighbours result{nullptr, nullptr, data.rows, k};
  Arena arena(nullptr);
  Update update(data, pool, result, arena, machine);
  update.run(method_for(1, data.rows, pool.rows.rows, data.columns, machine), nullptr, rows_seen,
             nullptr, true);
  return static_cast<size_t>(arena.used());
}

int update(const Matrix& data, const void* packed, const PoolRange& pool, const Neighbours& result,
           int64_t rows_seen, void* workspace, void* stream) {
  const Machine machine = Machine::current();
  Arena packed_arena(const_cast<void*>(packed));
  const PackedData prepared(packed_arena, data.rows, data.columns);
  Arena arena(workspace);
  Update update(data, pool, result, arena, machine);
  update.run(method_for(1, data.rows, pool.rows.rows, data.columns, machine), &prepared, rows_seen,
             static_cast<cudaStream_t>(stream), false);
  return cudaGetLastError();
}

}  // namespace naign::cuda
