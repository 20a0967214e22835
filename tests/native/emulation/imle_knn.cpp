// The search as functions of arrays, for tests/native/test_imle_knn_emulated.py.
#include <cuda_runtime.h>

#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/plan.h"
#include "imle_knn/cuda/search.h"

namespace {

using namespace naign;

naign::Matrix matrix(const float* values, int64_t rows, int64_t columns) {
  return {values, naign::Dtype::float32, rows, columns, columns, 1};
}

// Nothing may rest on memory being zero, and nothing may be written beyond it.
class Memory {
 public:
  explicit Memory(size_t count)
      : bytes_(static_cast<char*>(std::aligned_alloc(256, room(count)))), count_(count) {
    std::memset(bytes_, filler, room(count));
  }
  Memory(const Memory&) = delete;
  ~Memory() {
    const auto untouched = [](char byte) { return byte == filler; };
    if (!std::all_of(bytes_ + count_, bytes_ + room(count_), untouched)) {
      emulation::fail("a write beyond the workspace");
    }
    std::free(bytes_);
  }
  void* bytes() const { return bytes_; }

 private:
  static constexpr char filler = 0x5a;
  static size_t room(size_t count) { return (count / 256 + 2) * 256; }

  char* bytes_;
  size_t count_;
};

// How often each way was taken.
struct Passes {
  int64_t candidates;    // kept by the filter
  int64_t overflow;      // data rows whose list was too short, in the first filter
  int64_t exact;         // data rows compared exactly with a whole chunk
  int64_t out_of_range;  // pool rows compared exactly with a data row

  void count(const cuda::RerankProblem& p) {
    for (int slot = 0; slot < p.selection.active(); ++slot) {
      if (p.queries[slot].query.kind != RowKind::usual) continue;
      candidates += p.counts[p.selection.row(slot)];
      out_of_range += *p.out_of_range_count;
    }
  }
  void before_launch(const std::type_info& type, const void* parameter) {
    if (type == typeid(cuda::RerankProblem)) {
      count(*static_cast<const cuda::RerankProblem*>(parameter));
    } else if (type == typeid(cuda::PackProblem)) {
      const auto& selection = static_cast<const cuda::PackProblem*>(parameter)->selection;
      if (selection.count != nullptr) overflow += selection.active();
    } else if (type == typeid(cuda::ExactProblem)) {
      const auto& selection = static_cast<const cuda::ExactProblem*>(parameter)->selection;
      if (selection.count != nullptr) exact += selection.active();
    }
  }
};

// In place of the plan's own limits, where they are not zero.
struct Limits {
  int64_t capacity;
  int64_t chunk_rows;
  int64_t parts;
};

int search_within(const cuda::Search& search, const Limits& limits, float* distances,
                  int64_t* indices) {
  cuda::SearchPlan plan =
      cuda::plan_search(search.size(), cuda::current_device(), search.method, search.capacity);
  if (cuda::filters(plan.update.method)) {
    cuda::FilterPlan& filter = plan.update.filter;
    cuda::FilterLimits chosen = filter.limits;
    if (limits.chunk_rows > 0) chosen.chunk_rows = limits.chunk_rows;
    if (limits.parts > 0) chosen.parts = limits.parts;
    filter = cuda::plan_filter(search.size(), chosen, 0, filter.by_wgmma);
  }
  const Memory workspace(plan.bytes());
  return cuda::launch(plan, search, distances, indices, workspace.bytes(), nullptr);
}

}  // namespace

extern "C" void emulated_device(int capability, int multiprocessors, int late, int backwards) {
  emulation::capability = capability;
  emulation::multiprocessors = multiprocessors;
  emulation::late = late != 0;
  emulation::backwards = backwards != 0;
}

extern "C" int emulated_method(int64_t batches, int64_t rows, int64_t pool_rows, int64_t columns) {
  return static_cast<int>(
      cuda::method_of({batches, rows, pool_rows, columns, 1, false}, cuda::current_device()));
}

// Batches lie one after the other, each without gaps.
extern "C" int emulated_search(const Matrix* data, const Matrix* pool, int64_t batches, int64_t k,
                               double reject_below, int method, const Limits* limits,
                               float* distances, int64_t* indices, Passes* passes) {
  const cuda::Search search{*data,
                            *pool,
                            batches,
                            data->rows * data->columns,
                            pool->rows * pool->columns,
                            k,
                            reject_below,
                            static_cast<cuda::Method>(method),
                            limits->capacity};
  *passes = {};
  emulation::before_launch = [&](const std::type_info& type, const void* parameter) {
    passes->before_launch(type, parameter);
  };
  int status;
  if (limits->chunk_rows > 0 || limits->parts > 0) {
    status = search_within(search, *limits, distances, indices);
  } else {
    const Memory workspace(cuda::search_bytes(search));
    status = cuda::search(search, distances, indices, workspace.bytes(), nullptr);
  }
  emulation::before_launch = nullptr;
  return status;
}

// Takes a pool into the result, in chunks of so many rows; returns the bytes of packed data, or -1
// for an error.
extern "C" int64_t emulated_updates(const float* data, const float* pool, int64_t rows,
                                    int64_t pool_rows, int64_t columns, int64_t k,
                                    int64_t chunk_rows, double* distances, int64_t* indices) {
  const Matrix x = matrix(data, rows, columns);
  const size_t bytes = cuda::packed_bytes(rows, columns);
  const Memory packed(bytes);
  const Neighbours result{distances, indices, rows, k};
  bool ok = cuda::pack_data(x, matrix(pool, std::min(chunk_rows, pool_rows), columns),
                            packed.bytes(), nullptr) == 0;
  for (int64_t at = 0; at < pool_rows; at += chunk_rows) {
    const Matrix part = matrix(pool + at * columns, std::min(chunk_rows, pool_rows - at), columns);
    const PoolRange range{part, at, -infinity};
    const Memory workspace(cuda::update_bytes(x, range, k, at));
    ok &= cuda::update(x, packed.bytes(), range, result, at, workspace.bytes(), nullptr) == 0;
  }
  return ok ? static_cast<int64_t>(bytes) : -1;
}

// Which pool rows take part in the filter when rows equal to the one before them are skipped.
extern "C" void emulated_taking_part(const float* pool, int64_t rows, int64_t columns, bool* out) {
  using namespace cuda;
  const Matrix all = matrix(pool, rows, columns);
  const int64_t padded = round_to(rows, widest_tile);
  const int64_t slabs = slabs_of(columns);
  std::vector<float> centre(slabs * slab_bytes), largest(2 * frame_samples);
  std::vector<int8_t> values(padded * slabs * slab_bytes);
  std::vector<PoolColumn> found(padded);
  std::vector<RowBound> bounds(padded), panels(padded / panel_rows);
  std::vector<int32_t> out_of_range(padded);
  int32_t out_of_range_count = 0;
  Frame frame{};
  choose_frame(all, all, centre.data(), &frame, largest.data(), nullptr);
  PackProblem problem{};
  problem.rows = all;
  problem.selection = {nullptr, nullptr, static_cast<int32_t>(rows)};
  problem.padded_rows = padded;
  problem.centre = centre.data();
  problem.frame = &frame;
  problem.values = values.data();
  problem.slabs = static_cast<int32_t>(slabs);
  problem.digits = 1;
  problem.columns = found.data();
  problem.bounds = bounds.data();
  problem.panels = panels.data();
  problem.out_of_range = out_of_range.data();
  problem.out_of_range_count = &out_of_range_count;
  problem.skips_repeats = true;
  pack_rows(problem, nullptr);
  for (int64_t i = 0; i < rows; ++i) out[i] = found[i].norm < float_infinity;
}

// Products of a (rows, bytes) and b (columns, bytes) as a filter kernel computes them from packed
// slabs: scores without norms, of which the lists keep all. A sum of more than one digit is that of
// rows whose high digits come first, a high one counting 128 times a low one.
extern "C" void emulated_products(const int8_t* a, const int8_t* b, int64_t rows, int64_t columns,
                                  int64_t bytes, int digits, bool by_wgmma, int64_t* sums) {
  using namespace cuda;
  const int64_t slabs = slabs_of(bytes);
  const auto packed = [&](const int8_t* from, int64_t count) {
    std::vector<int8_t> to(round_to(count, widest_tile) * slabs * digits * slab_bytes);
    for (int64_t row = 0; row < count; ++row) {
      for (int64_t at = 0; at < digits * bytes; ++at) {
        const int64_t byte = at / bytes * slabs * slab_bytes + at % bytes;
        to[packed_offset(row, byte, slabs * digits)] = from[row * digits * bytes + at];
      }
    }
    return to;
  };
  const std::vector<int8_t> query_values = packed(a, rows);
  const std::vector<int8_t> pool_values = packed(b, columns);
  const std::vector<PackedQuery> queries(round_to(rows, panel_rows),
                                         {{0, 0, 0, RowKind::usual}, 1});
  // A norm of +inf keeps the padding out. Twice the query's scale times the column's is 1.
  std::vector<PoolColumn> pool_columns(round_to(columns, widest_tile), {float_infinity, 0});
  std::fill_n(pool_columns.begin(), columns, PoolColumn{0, 0.5f});
  const std::vector<RowBound> panels(pool_columns.size() / panel_rows);
  std::vector<double> bound(rows, infinity);
  std::vector<uint32_t> counts(rows);
  std::vector<Candidate> lists(rows * columns);
  const Frame frame{1, 1};
  FilterProblem problem{};
  problem.query_values = query_values.data();
  problem.queries = queries.data();
  problem.rows = static_cast<int32_t>(rows);
  problem.pool_values = pool_values.data();
  problem.columns = pool_columns.data();
  problem.panels = panels.data();
  problem.pool_rows = static_cast<int32_t>(columns);
  problem.slabs = static_cast<int32_t>(slabs);
  problem.last_steps = static_cast<int32_t>(ceil_div(bytes - (slabs - 1) * slab_bytes, step_bytes));
  problem.digits = digits;
  problem.frame = &frame;
  problem.bounds = Bounds::of_integers(bytes, bytes);
  problem.reject_below = -infinity;
  problem.bound = bound.data();
  problem.counts = counts.data();
  problem.lists = lists.data();
  problem.capacity = static_cast<int32_t>(columns);
  const auto run = by_wgmma ? run_filter_sm90 : run_filter_sm80;
  run(problem, emulation::multiprocessors, nullptr);
  for (int64_t row = 0; row < rows; ++row) {
    if (counts[row] != static_cast<uint32_t>(columns)) emulation::fail("a product is missing");
    for (int64_t i = 0; i < columns; ++i) {
      const Candidate& found = lists[row * columns + i];
      sums[row * columns + found.row] = -static_cast<int64_t>(found.score);
    }
  }
}
