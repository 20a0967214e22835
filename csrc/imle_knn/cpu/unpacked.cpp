// Search without packing: how threads share the work.
#include <algorithm>
#include <vector>

#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {
namespace {

struct Work {
  const Kernels& table;
  Method method;
  const Rows& data;
  const PoolRange& pool;

  // Takes a part of the pool into the result of a part of the data.
  void search(Span data_span, Span pool_span, const Neighbours& result) const {
    const auto way = method == Method::lanes       ? search_lanes
                     : method == Method::lane_sums ? search_lane_sums
                                                   : search_differences;
    way(table, data, pool, data_span, pool_span, result);
  }
};

Span part(int64_t whole, int64_t piece, int64_t pieces) {
  return {whole * piece / pieces, whole * (piece + 1) / pieces};
}

void split_data(const Work& work, int64_t pieces, const Neighbours& result,
                const Parallel& parallel) {
  parallel.run(pieces, [&](int64_t piece) {
    work.search(part(result.rows, piece, pieces), {0, work.pool.rows.rows}, result);
  });
}

// Every piece of the pool has a result of its own; together they hold the nearest of all.
void split_pool(const Work& work, int64_t pieces, const Neighbours& result,
                const Parallel& parallel) {
  const int64_t entries = result.rows * result.k;
  std::vector<double> distances(pieces * entries);
  std::vector<int64_t> indices(pieces * entries);
  const auto own = [&](int64_t piece) {
    return Neighbours{distances.data() + piece * entries, indices.data() + piece * entries,
                      result.rows, result.k};
  };
  parallel.run(pieces, [&](int64_t piece) {
    own(piece).clear();
    work.search({0, result.rows}, part(work.pool.rows.rows, piece, pieces), own(piece));
  });
  for (int64_t entry = 0; entry < pieces * entries; ++entry) {
    if (indices[entry] < 0) continue;
    insert(result, entry % entries / result.k, distances[entry], indices[entry]);
  }
}

}  // namespace

void search_unpacked(const Choice& choice, const Matrix& data, const PoolRange& pool,
                     const Neighbours& result, const Parallel& parallel) {
  if (data.rows == 0 || pool.rows.rows == 0) return;
  if (choice.method == Method::tree) return search_tree(data, pool, result, parallel);
  const Kernels& table = kernels(isa());
  const Rows rows(data, table);
  const Work work{table, choice.method, rows, pool};
  const bool side_by_side = choice.method != Method::differences;
  const int64_t rows_at_once = side_by_side ? lane_sum_rows : table.difference_rows;
  const auto pieces = static_cast<int64_t>(
      std::clamp(choice.cost / cost_worth_a_thread, 1.0, static_cast<double>(parallel.threads)));
  if (pieces == 1) {
    work.search({0, data.rows}, {0, pool.rows.rows}, result);
  } else if (data.rows >= pieces * rows_at_once) {
    split_data(work, pieces, result, parallel);
  } else {
    split_pool(work, pieces, result, parallel);
  }
}

}  // namespace naign::cpu
