// Search without packing: float32 distances of every pair straight from the rows, then the exact
// ones of the few that may be nearest.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {
namespace {

constexpr int64_t block_bytes = 256 << 10;
constexpr int64_t piece_bytes = 512 << 10;
constexpr int64_t least_block_rows = 16;
constexpr int64_t most_block_rows = 512;
constexpr int64_t most_data_rows = 4;
constexpr size_t few_rows = 64;

// Compares data rows with pool rows; one a thread.
class DifferenceSearch {
 public:
  DifferenceSearch(const Kernels& kernels, const Rows& data, const PoolRange& range)
      : kernels_(kernels),
        data_(data),
        pool_(range.rows, kernels),
        first_index_(range.first_index),
        reject_below_(range.reject_below),
        bound_(ScreenBound::of(data.columns(), kernels.difference_lanes)),
        block_rows_(block_rows(pool_)),
        sums_(kernels.difference_rows * block_rows_),
        carried_(carried_numbers(block_rows_, data.columns())),
        candidates_(block_rows_) {
    if (!pool_.in_place()) pool_copy_.resize(block_rows_ * data.columns());
    if (!data_.in_place()) data_copy_.resize(kernels.difference_rows * data.columns());
  }

  // Data rows are taken in pieces that stay in the cache while the pool passes by.
  void search(Span data, Span pool, const Neighbours& result) {
    const int64_t piece = std::max(most_data_rows, piece_bytes / (4 * data_.columns()) / 4 * 4);
    for (int64_t first = data.first; first < data.last; first += piece) {
      for (int64_t block = pool.first; block < pool.last; block += block_rows_) {
        load(block, std::min(block_rows_, pool.last - block));
        compare_all({first, std::min(first + piece, data.last)}, result);
      }
    }
  }

 private:
  static int64_t block_rows(const Rows& pool) {
    const int64_t in_cache = block_bytes / (4 * pool.columns()) / 16 * 16;
    const int64_t all = (pool.count() + 15) / 16 * 16;
    return std::min(std::clamp(in_cache, least_block_rows, most_block_rows), all);
  }

  void compare_all(Span data, const Neighbours& result) {
    for (int64_t row = data.first; row < data.last; row += kernels_.difference_rows) {
      compare(row, std::min(kernels_.difference_rows, data.last - row), result);
    }
  }

  void load(int64_t first, int64_t count) {
    first_ = first;
    count_ = count;
    stride_ = pool_.in_place() ? pool_.row_stride() : pool_.columns();
    block_ = pool_.get(first, pool_copy_.data());
    if (pool_.in_place()) return;
    for (int64_t i = 1; i < count; ++i) pool_.get(first + i, pool_copy_.data() + i * stride_);
  }

  void compare(int64_t first, int64_t count, const Neighbours& result) {
    const float* rows[most_data_rows];
    for (int64_t i = 0; i < count; ++i) {
      float* copy = data_.in_place() ? nullptr : data_copy_.data() + i * data_.columns();
      rows[i] = data_.get(first + i, copy);
    }
    std::fill(rows + count, rows + most_data_rows, rows[0]);
    kernels_.sum_differences({.data = rows,
                              .data_rows = count,
                              .pool = block_,
                              .pool_rows = count_,
                              .pool_stride = stride_,
                              .columns = data_.columns(),
                              .sums = sums_.get(),
                              .sums_stride = block_rows_,
                              .carried = carried_.get()});
    for (int64_t i = 0; i < count; ++i) {
      select(rows[i], sums_.get() + i * block_rows_, first + i, result);
    }
  }

  // The rows of the block that may be among the k nearest of a data row, then their distances.
  void select(const float* x, const float* sums, int64_t row, const Neighbours& result) {
    const double& worst = result.distances[row * result.k + result.k - 1];
    const double bound = worst < infinity ? worst : kth_upper_bound(sums, result.k);
    const int64_t found =
        kernels_.find_at_most(sums, count_, round_up(bound_.beyond(bound)), candidates_.get());
    for (int64_t c = 0; c < found; ++c) {
      const int64_t j = candidates_.get()[c];
      if (c > 0 && bound_.farther(sums[j], worst)) continue;
      if (bound_.nearer(sums[j], reject_below_) || repeats(j, result.k)) continue;
      const double distance = kernels_.distance(x, pool_row(j), data_.columns());
      // A distance of finite rows is finite, one with a NaN or Inf in it is not.
      if (!(distance <= std::numeric_limits<double>::max()) || distance < reject_below_) continue;
      insert(result, row, distance, first_index_ + first_ + j);
    }
  }

  // The k-th smallest of the certified upper bounds of the block's admissible rows.
  double kth_upper_bound(const float* sums, int64_t k) {
    const float rejected = reject_below_ > 0 ? round_up(bound_.beyond(reject_below_)) : -1.0f;
    if (k == 1) return bound_.upper(kernels_.least_above(sums, count_, rejected));
    smallest_.clear();
    for (int64_t j = 0; j < count_; ++j) {
      if (sums[j] > rejected) smallest_.push_back(sums[j]);
    }
    if (static_cast<int64_t>(smallest_.size()) < k) return infinity;
    std::nth_element(smallest_.begin(), smallest_.begin() + (k - 1), smallest_.end());
    return bound_.upper(smallest_[k - 1]);
  }

  const float* pool_row(int64_t j) const { return block_ + j * stride_; }

  // A row equal to the one before it cannot be the single nearest: the tie goes to the other.
  bool repeats(int64_t j, int64_t k) const {
    return k == 1 && j > 0 &&
           std::memcmp(pool_row(j), pool_row(j - 1), data_.columns() * sizeof(float)) == 0;
  }

  const Kernels& kernels_;
  const Rows& data_;
  Rows pool_;
  int64_t first_index_;
  double reject_below_;
  ScreenBound bound_;
  int64_t block_rows_;
  Scratch<float, most_data_rows * few_rows> sums_;
  Scratch<float, 1> carried_;
  Scratch<int32_t, few_rows> candidates_;
  std::vector<float> smallest_;
  std::vector<float> pool_copy_;
  std::vector<float> data_copy_;
  const float* block_ = nullptr;  // the pool rows first_, first_ + 1, ...
  int64_t first_ = 0;
  int64_t count_ = 0;
  int64_t stride_ = 0;
};

}  // namespace

void search_differences(const Kernels& table, const Rows& data, const PoolRange& pool,
                        Span data_span, Span pool_span, const Neighbours& result) {
  DifferenceSearch(table, data, pool).search(data_span, pool_span, result);
}

}  // namespace naign::cpu
