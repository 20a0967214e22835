// Which way to search.
#include "imle_knn/cpu/methods.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <iterator>
#include <stdexcept>
#include <string>

#include "imle_knn/cpu/kernels.h"

namespace naign::cpu {
namespace {

constexpr const char* method_names[]{"packed", "tree", "differences", "lane_sums", "lanes"};
constexpr const char* projected_name = "projected";
constexpr int nothing_forced = -1;
constexpr int64_t most_tree_columns = 6;
std::atomic<int> forced{nothing_forced};
std::atomic<bool> projects{false};

// The least cost so far.
struct Least {
  Choice choice;

  void consider(Method other, double cost) {
    const bool wanted = forced == static_cast<int>(other);
    const bool cheaper = cost < choice.cost && forced != static_cast<int>(choice.method);
    if (wanted || cheaper) choice = {other, cost};
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
  Least best{{Method::packed, n * (110 + 0.8 * d + 150 * static_cast<double>(k) * std::log(m)) +
                                  m * (75 + 0.4 * d) + n * m * pair}};
  best.consider(Method::differences,
                n * (35 + 0.1 * d) + 0.05 * m * d + n * m * (0.65 + 0.008 * d));
  if (columns <= most_tree_columns) {
    best.consider(Method::tree, std::log2(m + 1) * (17 * m + 20 * std::pow(1.55, d) * n) + 50 * n);
  }
  if (k > 1) return best.choice;
  const double n16 = round_up_to(lane_rows, n);
  const double n32 = round_up_to(lane_sum_rows, n);
  best.consider(Method::lanes, n16 * (3 + 0.2 * d) + m * d + n16 * m * (0.2 + 0.12 * d));
  if (rejects) return best.choice;
  best.consider(Method::lane_sums,
                n32 * (8.5 + 0.4 * d) + 0.05 * m * d + n32 * m * std::max(0.08, 0.0115 * d));
  return best.choice;
}

}  // namespace

Choice choose_method(const Matrix& data, const PoolRange& pool, int64_t k) {
  return choose(data.rows, pool.rows.rows, data.columns, k, pool.reject_below > 0);
}

bool projection_is_forced() { return projects; }

void force_method(const std::string& name) {
  const bool with_projection = name == projected_name;
  int chosen = nothing_forced;
  if (with_projection) {
    chosen = static_cast<int>(Method::packed);
  } else if (!name.empty()) {
    const auto* found = std::find(std::begin(method_names), std::end(method_names), name);
    if (found == std::end(method_names)) {
      throw std::invalid_argument(
          "method: expected packed, tree, differences, lane_sums, lanes, projected or '', got '" +
          name + "'");
    }
    chosen = static_cast<int>(found - std::begin(method_names));
  }
  forced = chosen;
  projects = with_projection;
}

}  // namespace naign::cpu
