// The search by the filter: README.md has the steps of a chunk.
//
// Kernels of step 4 read how much there is to do from the device and end at once if it is nothing,
// so the host never waits. The bounds only ever fall; the answer is the smallest (distance, index)
// whatever the order in which pairs were found. Chunks grow with the rows seen, so that lists hold
// what a chunk can add.
#include "imle_knn/cuda/search_by_filter.cuh"

#include <algorithm>

#include "imle_knn/cuda/kernels.cuh"

namespace naign::cuda {
namespace {

// What pack_queries left, and what reads it.
struct PackedData {
  Frame* frame;
  float* centre;
  float* largest;
  PackedQuery* queries;
  int8_t* values;

  PackedData(const PackedLayout& layout, void* packed)
      : frame(layout.frame.in(packed)),
        centre(layout.centre.in(packed)),
        largest(layout.largest.in(packed)),
        queries(layout.queries.in(packed)),
        values(layout.values.in(packed)) {}
};

Matrix rows_of(const Matrix& matrix, const Range& range) {
  Matrix part = matrix;
  part.values = matrix.row(range.first);
  part.rows = range.rows;
  return part;
}

// A group of data rows against the pool, chunk by chunk.
class GroupSearch {
 public:
  GroupSearch(const FilterPlan& plan, const Range& group, const Matrix& data,
              const PackedData& packed, const PoolRange& pool, const Neighbours& result,
              void* workspace, int multiprocessors, cudaStream_t stream)
      : plan_(plan),
        layout_(plan.layout),
        workspace_(workspace),
        counters_(plan.layout.counters.in(workspace)),
        pool_(pool),
        multiprocessors_(multiprocessors),
        stream_(stream),
        data_(rows_of(data, group)),
        result_{result.distances + group.first * result.k, result.indices + group.first * result.k,
                group.rows, result.k},
        frame_(packed.frame),
        centre_(packed.centre),
        queries_(packed.queries + group.first),
        values_(packed.values + group.first * slabs_of(data.columns) * slab_bytes),
        slabs_(static_cast<int32_t>(slabs_of(data.columns))),
        bounds_(Bounds::of_integers(data.columns, data.columns)) {}

  void run() {
    const int64_t rows = plan_.limits.group_rows;
    cudaMemsetAsync(at(layout_.counts), 0, rows * sizeof(uint32_t), stream_);
    cudaMemsetAsync(at(layout_.locks), 0, rows * sizeof(int32_t), stream_);
    worst_of(result_, at(layout_.bound), stream_);
    for (const Range& chunk : plan_.chunks) run_chunk(chunk, plan_.seeds && chunk.first == 0);
  }

 private:
  template <class T>
  T* at(const Region<T>& region) const {
    return region.in(workspace_);
  }

  void run_chunk(const Range& range, bool seeds) {
    cudaMemsetAsync(counters_, 0, layout_.zeroed_bytes(), stream_);
    const Matrix chunk = rows_of(pool_.rows, range);
    const int64_t index = pool_.first_index + range.first;
    pack_pool(chunk, 1, at(layout_.panels), &counters_->out_of_range, nullptr);
    FilterProblem filter = filter_of(chunk.rows, 1, at(layout_.panels));
    if (seeds) seed(filter);
    run_filter(filter);
    RerankProblem survivors = rerank_of(chunk, index);
    survivors.overflow = at(layout_.overflow);
    survivors.overflow_count = &counters_->overflow;
    rerank(survivors, stream_);
    run_overflow(chunk, index);
    run_exact(chunk, index);
  }

  void seed(FilterProblem filter) {
    filter.pool_rows =
        static_cast<int32_t>(std::min<int64_t>(filter.pool_rows, plan_.limits.seed_rows));
    filter.groups = reinterpret_cast<float*>(at(layout_.lists));
    filter.groups_per_row = static_cast<int32_t>(seed_groups(filter.pool_rows));
    run_filter(filter);
    seed_bounds(
        {queries_, at(layout_.panels), static_cast<int32_t>(ceil_div(filter.pool_rows, panel_rows)),
         filter.groups, filter.groups_per_row, static_cast<int32_t>(data_.rows),
         static_cast<int32_t>(result_.k), frame_, bounds_, at(layout_.bound)},
        stream_);
  }

  // Data rows with too many candidates: the same with two digits, which leaves far fewer.
  void run_overflow(const Matrix& chunk, int64_t index) {
    const Selection rows{at(layout_.overflow), &counters_->overflow,
                         static_cast<int32_t>(data_.rows)};
    PackProblem pack = pack_of(data_, 2, at(layout_.query_values));
    pack.selection = rows;
    pack.padded_rows = round_to(data_.rows, panel_rows);
    pack.queries = at(layout_.queries);
    pack_rows(pack, stream_);
    const int64_t part_rows = plan_.limits.part_rows(chunk.rows);
    for (int64_t first = 0; first < chunk.rows; first += part_rows) {
      const Matrix part = rows_of(chunk, {first, std::min(part_rows, chunk.rows - first)});
      RowBound* panels = at(layout_.panels_again) + first / panel_rows;
      int32_t* out_of_range = counters_->out_of_range_again + first / part_rows;
      pack_pool(part, 2, panels, out_of_range, rows.count);
      FilterProblem filter = filter_of(part.rows, 2, panels);
      filter.query_values = at(layout_.query_values);
      filter.queries = at(layout_.queries);
      filter.ids = rows.ids;
      filter.count = rows.count;
      run_filter(filter);
      RerankProblem survivors = rerank_of(part, index + first);
      survivors.selection = rows;
      survivors.queries = at(layout_.queries);
      survivors.out_of_range_count = out_of_range;
      survivors.overflow = at(layout_.exact);
      survivors.overflow_count = &counters_->exact;
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
    problem.selection = {at(layout_.exact), &counters_->exact,
                         static_cast<int32_t>(data_.rows * (1 + plan_.limits.parts))};
    problem.segment_rows = segment_rows;
    problem.bound = at(layout_.bound);
    problem.locks = at(layout_.locks);
    compare_exactly(problem, multiprocessors_, stream_);
  }

  void run_filter(const FilterProblem& problem) {
    const auto run = plan_.by_wgmma ? run_filter_sm90 : run_filter_sm80;
    run(problem, multiprocessors_, stream_);
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

  void pack_pool(const Matrix& rows, int digits, RowBound* panels, int32_t* out_of_range_count,
                 const int32_t* gate) {
    PackProblem problem = pack_of(rows, digits, at(layout_.values));
    problem.padded_rows = round_to(rows.rows, widest_tile);
    problem.columns = at(layout_.columns);
    problem.bounds = at(layout_.row_bounds);
    problem.panels = panels;
    problem.out_of_range = at(layout_.out_of_range);
    problem.out_of_range_count = out_of_range_count;
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
    problem.pool_values = at(layout_.values);
    problem.columns = at(layout_.columns);
    problem.panels = panels;
    problem.pool_rows = static_cast<int32_t>(pool_rows);
    problem.slabs = slabs_;
    problem.last_steps = static_cast<int32_t>(ceil_div(last, step_bytes));
    problem.digits = digits;
    problem.frame = frame_;
    problem.bounds = bounds_;
    problem.reject_below = pool_.reject_below;
    problem.bound = at(layout_.bound);
    problem.tightens = plan_.tightens;
    problem.counts = at(layout_.counts);
    problem.lists = at(layout_.lists);
    problem.capacity = static_cast<int32_t>(plan_.limits.capacity);
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
    problem.row_bounds = at(layout_.row_bounds);
    problem.out_of_range = at(layout_.out_of_range);
    problem.out_of_range_count = &counters_->out_of_range;
    problem.frame = frame_;
    problem.bounds = bounds_;
    problem.bound = at(layout_.bound);
    problem.counts = at(layout_.counts);
    problem.lists = at(layout_.lists);
    problem.capacity = static_cast<int32_t>(plan_.limits.capacity);
    problem.exact = at(layout_.exact);
    problem.exact_count = &counters_->exact;
    return problem;
  }

  const FilterPlan& plan_;
  const FilterLayout& layout_;
  void* workspace_;
  Counters* counters_;
  const PoolRange& pool_;
  int multiprocessors_;
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

}  // namespace

void pack_queries(const PackedLayout& layout, const Matrix& data, const Matrix& sample,
                  void* packed, cudaStream_t stream) {
  const PackedData out(layout, packed);
  choose_frame(data, sample, out.centre, out.frame, out.largest, stream);
  PackProblem problem{};
  problem.rows = data;
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(data.rows)};
  problem.padded_rows = round_to(data.rows, panel_rows);
  problem.centre = out.centre;
  problem.frame = out.frame;
  problem.values = out.values;
  problem.slabs = static_cast<int32_t>(slabs_of(data.columns));
  problem.digits = 1;
  problem.queries = out.queries;
  pack_rows(problem, stream);
}

void search_by_filter(const FilterPlan& plan, const Matrix& data, const PackedLayout& layout,
                      void* packed, const PoolRange& pool, const Neighbours& result,
                      void* workspace, int multiprocessors, cudaStream_t stream) {
  const PackedData queries(layout, packed);
  for (const Range& group : plan.groups) {
    GroupSearch(plan, group, data, queries, pool, result, workspace, multiprocessors, stream).run();
  }
}

}  // namespace naign::cuda
