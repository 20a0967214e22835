// Search without packing: which way, and how threads share the work.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {
namespace {

enum class Method { packed, tree, differences, lane_sums, lanes };

constexpr const char* method_names[]{"packed", "tree", "differences", "lane_sums", "lanes"};
constexpr int nothing_forced = -1;
constexpr int64_t most_tree_columns = 6;
std::atomic<int> forced{nothing_forced};

// A way to search, and about how many nanoseconds it takes one thread.
struct Choice {
  Method method = Method::packed;
  double cost = 0;

  void consider(Method other, double other_cost) {
    const bool wanted = forced == static_cast<int>(other);
    if (wanted || (other_cost < cost && forced != static_cast<int>(method))) {
      *this = {other, other_cost};
    }
  }
};

double round_up_to(double step, double count) { return std::ceil(count / step) * step; }

// The constants are fitted to measurements; they only have to rank the ways. Every way has a price
// for each data row, each pool row and each pair; the packed filter and the tree prune pairs, which
// costs logarithms of the pool instead.
Choice choose(int64_t rows, int64_t pool_rows, int64_t columns, int64_t k, bool rejects) {
  const auto n = static_cast<double>(rows);
  const auto m = static_cast<double>(pool_rows);
  const auto d = static_cast<double>(columns);
  const double pair = columns < 24 ? 0.1 + 0.008 * d : 0.13 + 0.0027 * d;
  Choice best{Method::packed, n * (110 + 0.8 * d + 150 * static_cast<double>(k) * std::log(m)) +
                                  m * (75 + 0.4 * d) + n * m * pair};
  best.consider(Method::differences,
                n * (35 + 0.1 * d) + 0.05 * m * d + n * m * (0.65 + 0.008 * d));
  if (columns <= most_tree_columns) {
    best.consider(Method::tree, std::log2(m + 1) * (17 * m + 20 * std::pow(1.55, d) * n) + 50 * n);
  }
  if (k > 1) return best;
  const double n16 = round_up_to(lane_rows, n);
  const double n32 = round_up_to(lane_sum_rows, n);
  best.consider(Method::lanes, n16 * (3 + 0.2 * d) + m * d + n16 * m * (0.2 + 0.12 * d));
  if (rejects) return best;
  best.consider(Method::lane_sums,
                n32 * (8.5 + 0.4 * d) + 0.05 * m * d + n32 * m * std::max(0.08, 0.0115 * d));
  return best;
}

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

void force_method(const std::string& name) {
  if (name.empty()) {
    forced = nothing_forced;
    return;
  }
  const auto* found = std::find(std::begin(method_names), std::end(method_names), name);
  if (found == std::end(method_names)) {
    throw std::invalid_argument(
        "method: expected packed, tree, differences, lane_sums, lanes or '', got '" + name + "'");
  }
  forced = static_cast<int>(found - std::begin(method_names));
}

Unpacked choose_unpacked(const Matrix& data, const PoolRange& pool, int64_t k) {
  const Choice choice = choose(data.rows, pool.rows.rows, data.columns, k, pool.reject_below > 0);
  return {static_cast<int32_t>(choice.method), choice.cost};
}

void search_unpacked(const Unpacked& way, const Matrix& data, const PoolRange& pool,
                     const Neighbours& result, const Parallel& parallel) {
  constexpr double cost_worth_a_thread = 4e3;
  if (data.rows == 0 || pool.rows.rows == 0) return;
  const auto method = static_cast<Method>(way.method);
  if (method == Method::tree) return search_tree(data, pool, result, parallel);
  const Kernels& table = kernels(isa());
  const Rows rows(data, table);
  const Work work{table, method, rows, pool};
  const bool side_by_side = method != Method::differences;
  const int64_t rows_at_once = side_by_side ? lane_sum_rows : table.difference_rows;
  const auto pieces = static_cast<int64_t>(
      std::clamp(way.cost / cost_worth_a_thread, 1.0, static_cast<double>(parallel.threads)));
  if (pieces == 1) {
    work.search({0, data.rows}, {0, pool.rows.rows}, result);
  } else if (data.rows >= pieces * rows_at_once) {
    split_data(work, pieces, result, parallel);
  } else {
    split_pool(work, pieces, result, parallel);
  }
}

}  // namespace naign::cpu
