// One call, from inputs to outputs.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/subnormals.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/packed_search.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign {

void Neighbours::clear() const {
  std::fill_n(distances, rows * k, infinity);
  std::fill_n(indices, rows * k, int64_t{-1});
}

namespace cpu {
namespace {

void search_one(const Choice& choice, const Matrix& data, const PoolRange& pool,
                const Neighbours& result, const Parallel& parallel) {
  result.clear();
  if (choice.method != Method::packed) {
    return search_unpacked(choice, data, pool, result, parallel);
  }
  const PackedData packed = pack_data(data, pool.rows, first_filter(data.columns), parallel);
  search_packed(data, packed, nullptr, pool, result, parallel);
}

// Batches first ... last - 1, one after the other.
void search_batches(const Search& problem, const Choice& choice, int64_t first, int64_t last,
                    float* distances, int64_t* indices, const Parallel& parallel) {
  const int64_t entries = problem.data.first.rows * problem.k;
  std::vector<double> exact(entries);
  for (int64_t batch = first; batch < last; ++batch) {
    const Matrix data = problem.data[batch];
    const PoolRange pool{problem.pool[batch], 0, problem.reject_below};
    const Neighbours result{exact.data(), indices + batch * entries, data.rows, problem.k};
    search_one(choice, data, pool, result, parallel);
    finish(data, result, distances + batch * entries);
  }
}

}  // namespace

void search(const Search& problem, float* distances, int64_t* indices, const Parallel& threads) {
  const KeepSubnormals here;
  const Parallel parallel = keeping_subnormals(threads);
  const PoolRange pool{problem.pool.first, 0, problem.reject_below};
  const Choice choice = choose_method(problem.data.first, pool, problem.k);
  const int64_t batches = problem.data.count;
  if (batches == 1) return search_batches(problem, choice, 0, 1, distances, indices, parallel);
  const double worth = static_cast<double>(batches) * choice.cost / cost_worth_a_thread;
  const auto most = static_cast<double>(std::min(batches, parallel.threads));
  const auto pieces = static_cast<int64_t>(std::clamp(worth, 1.0, std::max(1.0, most)));
  const auto piece = [&](int64_t i) {
    search_batches(problem, choice, batches * i / pieces, batches * (i + 1) / pieces, distances,
                   indices, on_this_thread());
  };
  if (pieces == 1) return piece(0);
  parallel.run(pieces, piece);
}

void finish(const Matrix& data, const Neighbours& result, float* distances) {
  const KeepSubnormals here;
  const Kernels& table = kernels(isa());
  const Rows rows(data, table);
  std::vector<float> scratch(rows.in_place() ? 0 : data.columns);
  for (int64_t i = 0; i < result.rows; ++i) {
    const bool empty = result.indices[i * result.k] < 0;
    const bool usable = !empty || table.all_finite(rows.get(i, scratch.data()), data.columns);
    for (int64_t n = i * result.k; n < (i + 1) * result.k; ++n) {
      distances[n] = usable ? static_cast<float>(result.distances[n])
                            : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

const Kernels& kernels(Isa isa) {
  return with_isa(isa, [](auto set) -> const Kernels& { return kernels<set()>(); });
}

}  // namespace cpu
}  // namespace naign
