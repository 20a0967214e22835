// Search in few dimensions: a k-d tree over the pool (Friedman, Bentley and Finkel, 1977).
//
// Pruning is exact without any slack. Let b be the point of a box nearest to x. Rounding is
// monotone, so for every y of the box |fl(x_k - b_k)| <= |fl(x_k - y_k)|, and the same holds for
// the squares and for their sum in the same order: distance(x, b) <= distance(x, y) as computed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {
namespace {

constexpr int64_t leaf_rows = 16;

// Nodes are numbered as in a heap: the children of n are 2 n + 1 and 2 n + 2.
class Tree {
 public:
  Tree(const Matrix& pool, const Kernels& kernels, const Parallel& parallel)
      : kernels_(kernels), columns_(pool.columns) {
    read(pool);
    depth_ = 0;
    while ((leaf_rows << depth_) < count()) ++depth_;
    const int64_t nodes = (int64_t{2} << depth_) - 1;
    low_.resize(nodes * columns_);
    high_.resize(nodes * columns_);
    least_index_.resize(nodes);
    build(parallel);
    gather();
  }

  int64_t count() const { return static_cast<int64_t>(order_.size()); }

  // Takes the rows of the tree into the running result of one data row.
  void search(const float* x, int64_t row, const PoolRange& pool, const Neighbours& result,
              std::vector<float>& nearest_point) const {
    if (count() > 0) visit(0, 0, count(), 0, x, row, pool, result, nearest_point.data());
  }

 private:
  void read(const Matrix& pool) {
    const Rows rows(pool, kernels_);
    values_.resize(rows.count() * columns_);
    for (int64_t i = 0; i < rows.count(); ++i) {
      float* out = values_.data() + i * columns_;
      const float* row = rows.get(i, out);
      if (row != out) std::copy_n(row, columns_, out);
      if (kernels_.all_finite(out, columns_)) order_.push_back(i);
    }
  }

  const float* value(int64_t position) const {
    return values_.data() + order_[position] * columns_;
  }

  // The upper levels one node after the other, then the subtrees side by side.
  void build(const Parallel& parallel) {
    const int64_t shared = std::min<int64_t>(depth_, parallel.threads > 1 ? 4 : 0);
    build_to(0, 0, count(), 0, shared);
    const int64_t first = (int64_t{1} << shared) - 1;
    parallel.run(first + 1, [&](int64_t i) {
      const auto [begin, end] = range_of(first + i, shared);
      build_to(first + i, begin, end, shared, depth_ + 1);
    });
  }

  std::pair<int64_t, int64_t> range_of(int64_t node, int64_t level) const {
    int64_t begin = 0;
    int64_t end = count();
    for (int64_t bit = level - 1; bit >= 0; --bit) {
      const int64_t middle = begin + (end - begin) / 2;
      (((node + 1) >> bit) & 1 ? begin : end) = middle;
    }
    return {begin, end};
  }

  // Builds the levels before last_level below node; depth_ + 1 builds all of them.
  void build_to(int64_t node, int64_t begin, int64_t end, int64_t level, int64_t last_level) {
    if (level == last_level) return;
    bound(node, begin, end);
    if (level == depth_) return;
    const int64_t middle = begin + (end - begin) / 2;
    const int64_t column = widest(node);
    std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end,
                     [&](int64_t a, int64_t b) {
                       return values_[a * columns_ + column] < values_[b * columns_ + column];
                     });
    build_to(2 * node + 1, begin, middle, level + 1, last_level);
    build_to(2 * node + 2, middle, end, level + 1, last_level);
  }

  void bound(int64_t node, int64_t begin, int64_t end) {
    float* low = low_.data() + node * columns_;
    float* high = high_.data() + node * columns_;
    std::fill_n(low, columns_, std::numeric_limits<float>::infinity());
    std::fill_n(high, columns_, -std::numeric_limits<float>::infinity());
    least_index_[node] = std::numeric_limits<int64_t>::max();
    for (int64_t i = begin; i < end; ++i) {
      const float* row = value(i);
      for (int64_t k = 0; k < columns_; ++k) {
        low[k] = std::min(low[k], row[k]);
        high[k] = std::max(high[k], row[k]);
      }
      least_index_[node] = std::min(least_index_[node], order_[i]);
    }
  }

  int64_t widest(int64_t node) const {
    int64_t widest = 0;
    double extent = -1;
    for (int64_t k = 0; k < columns_; ++k) {
      const double length = double{high_[node * columns_ + k]} - low_[node * columns_ + k];
      if (length > extent) {
        extent = length;
        widest = k;
      }
    }
    return widest;
  }

  // Rows in the order of the leaves: a leaf is read from one place.
  void gather() {
    std::vector<float> sorted(count() * columns_);
    for (int64_t i = 0; i < count(); ++i)
      std::copy_n(value(i), columns_, sorted.data() + i * columns_);
    values_ = std::move(sorted);
  }

  double box_distance(int64_t node, const float* x, float* nearest_point) const {
    for (int64_t k = 0; k < columns_; ++k) {
      nearest_point[k] = std::clamp(x[k], low_[node * columns_ + k], high_[node * columns_ + k]);
    }
    return kernels_.distance(x, nearest_point, columns_);
  }

  // True where nothing in the box can enter the result, not even by a lower index.
  bool prunes(double distance, int64_t node, int64_t row, const PoolRange& pool,
              const Neighbours& result) const {
    const int64_t last = row * result.k + result.k - 1;
    const double worst = result.distances[last];
    return distance > worst || (distance == worst && result.indices[last] >= 0 &&
                                pool.first_index + least_index_[node] > result.indices[last]);
  }

  void visit(int64_t node, int64_t begin, int64_t end, int64_t level, const float* x, int64_t row,
             const PoolRange& pool, const Neighbours& result, float* nearest_point) const {
    if (level == depth_) {
      scan(begin, end, x, row, pool, result);
      return;
    }
    const int64_t middle = begin + (end - begin) / 2;
    const int64_t left = 2 * node + 1;
    const double left_distance = box_distance(left, x, nearest_point);
    const double right_distance = box_distance(left + 1, x, nearest_point);
    const auto go = [&](int64_t child, double distance) {
      if (prunes(distance, child, row, pool, result)) return;
      const bool is_left = child == left;
      visit(child, is_left ? begin : middle, is_left ? middle : end, level + 1, x, row, pool,
            result, nearest_point);
    };
    const bool left_first = left_distance <= right_distance;
    go(left_first ? left : left + 1, left_first ? left_distance : right_distance);
    go(left_first ? left + 1 : left, left_first ? right_distance : left_distance);
  }

  void scan(int64_t begin, int64_t end, const float* x, int64_t row, const PoolRange& pool,
            const Neighbours& result) const {
    for (int64_t i = begin; i < end; ++i) {
      const double distance = kernels_.distance(x, values_.data() + i * columns_, columns_);
      if (distance < pool.reject_below) continue;
      insert(result, row, distance, pool.first_index + order_[i]);
    }
  }

  const Kernels& kernels_;
  int64_t columns_;
  int64_t depth_;
  std::vector<float> values_;   // rows; in the order of order_ once built
  std::vector<int64_t> order_;  // pool rows, leaf after leaf
  std::vector<float> low_;      // boxes of the nodes
  std::vector<float> high_;
  std::vector<int64_t> least_index_;
};

}  // namespace

void search_tree(const Matrix& data, const PoolRange& pool, const Neighbours& result,
                 const Parallel& parallel) {
  constexpr int64_t piece = 256;
  const Kernels& table = kernels(isa());
  const Tree tree(pool.rows, table, parallel);
  const Rows rows(data, table);
  const int64_t columns = data.columns;
  parallel.run((rows.count() + piece - 1) / piece, [&](int64_t index) {
    std::vector<float> scratch(columns);
    std::vector<float> nearest_point(columns);
    for (int64_t i = index * piece; i < std::min(rows.count(), (index + 1) * piece); ++i) {
      const float* x = rows.get(i, scratch.data());
      if (table.all_finite(x, columns)) tree.search(x, i, pool, result, nearest_point);
    }
  });
}

}  // namespace naign::cpu
