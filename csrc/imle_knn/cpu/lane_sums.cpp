// Search among rows of few columns: float32 distances of 32 data rows at a time, one a lane. The
// two smallest of a lane tell whether the smallest is certainly the nearest.
#include <algorithm>
#include <limits>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

constexpr int64_t chunk_bytes = 128 << 10;

struct Smallest {
  float first[lane_sum_rows];
  float second[lane_sum_rows];
  int32_t index[lane_sum_rows];

  Smallest() {
    std::fill_n(first, lane_sum_rows, std::numeric_limits<float>::infinity());
    std::fill_n(second, lane_sum_rows, std::numeric_limits<float>::infinity());
    std::fill_n(index, lane_sum_rows, -1);
  }
};

class LaneSearch {
 public:
  LaneSearch(const Kernels& kernels, const Rows& data, const PoolRange& range, Span data_span,
             Span pool_span)
      : kernels_(kernels),
        data_(data),
        range_(range),
        pool_(range.rows, kernels),
        data_span_(data_span),
        pool_span_(pool_span),
        bound_(ScreenBound::of(data.columns(), 1)),
        lanes_(aligned_array<float>(data.columns() * lane_sum_rows)),
        smallest_((data_span.last - data_span.first + lane_sum_rows - 1) / lane_sum_rows) {
    if (!data_.in_place()) data_copy_.resize(lane_sum_rows * data.columns());
  }

  void search(const Neighbours& result) {
    const int64_t columns = data_.columns();
    const int64_t chunk = std::max<int64_t>(1, chunk_bytes / (4 * columns));
    if (!pool_.in_place()) pool_copy_.resize(chunk * columns);
    for (int64_t row = pool_span_.first; row < pool_span_.last; row += chunk) {
      take_chunk(row, std::min(chunk, pool_span_.last - row));
    }
    for (int64_t row = data_span_.first; row < data_span_.last; row += lane_rows) {
      finish({row, std::min(row + lane_rows, data_span_.last)}, result);
    }
  }

 private:
  void take_chunk(int64_t first, int64_t count) {
    const int64_t columns = data_.columns();
    const float* rows = pool_.get(first, pool_copy_.data());
    for (int64_t i = 1; i < count && !pool_.in_place(); ++i) {
      pool_.get(first + i, pool_copy_.data() + i * columns);
    }
    for (size_t block = 0; block < smallest_.size(); ++block) {
      transpose(data_span_.first + static_cast<int64_t>(block) * lane_sum_rows);
      kernels_.nearest_by_sums({.data = lanes_.get(),
                                .pool = rows,
                                .pool_rows = count,
                                .pool_stride = pool_.in_place() ? pool_.row_stride() : columns,
                                .columns = columns,
                                .first = static_cast<int32_t>(first - pool_span_.first),
                                .smallest = smallest_[block].first,
                                .second = smallest_[block].second,
                                .index = smallest_[block].index});
    }
  }

  // Lanes beyond the last row repeat it.
  void transpose(int64_t first) {
    const int64_t columns = data_.columns();
    const float* rows[lane_sum_rows];
    for (int64_t lane = 0; lane < lane_sum_rows; ++lane) {
      float* copy = data_.in_place() ? nullptr : data_copy_.data() + lane * columns;
      rows[lane] = data_.get(std::min(first + lane, data_span_.last - 1), copy);
    }
    for (int64_t k = 0; k < columns; ++k) {
      for (int64_t lane = 0; lane < lane_sum_rows; ++lane) {
        lanes_[k * lane_sum_rows + lane] = rows[lane][k];
      }
    }
  }

  // Rows that are in doubt are searched again: one by one where they are few, else side by side.
  void finish(Span rows, const Neighbours& result) {
    constexpr int64_t few = 2;
    int64_t doubtful[lane_rows];
    int64_t count = 0;
    for (int64_t row = rows.first; row < rows.last; ++row) {
      if (!settle(row, result)) doubtful[count++] = row;
    }
    if (count > few) return search_lanes(kernels_, data_, range_, rows, pool_span_, result);
    for (int64_t i = 0; i < count; ++i) {
      const Span row{doubtful[i], doubtful[i] + 1};
      search_differences(kernels_, data_, range_, row, pool_span_, result);
    }
  }

  // Takes the nearest row into the result; false where the sums leave it in doubt.
  bool settle(int64_t row, const Neighbours& result) {
    const int64_t position = row - data_span_.first;
    const Smallest& smallest = smallest_[position / lane_sum_rows];
    const int64_t lane = position % lane_sum_rows;
    const float sum = smallest.first[lane];
    if (bound_.farther(sum, result.distances[row])) return true;
    const double limit = bound_.beyond(bound_.upper(sum));
    if (!(limit <= std::numeric_limits<float>::max() && smallest.second[lane] > limit))
      return false;
    const int64_t nearest = pool_span_.first + smallest.index[lane];
    const float* x = data_.get(row, data_copy_.data());
    const float* y = pool_.get(nearest, pool_copy_.data());
    insert(result, row, kernels_.distance(x, y, data_.columns()), range_.first_index + nearest);
    return true;
  }

  const Kernels& kernels_;
  const Rows& data_;
  const PoolRange& range_;
  Rows pool_;
  Span data_span_;
  Span pool_span_;
  ScreenBound bound_;
  AlignedArray<float> lanes_;
  std::vector<Smallest> smallest_;
  std::vector<float> data_copy_;
  std::vector<float> pool_copy_;
};

}  // namespace

void search_lane_sums(const Kernels& table, const Rows& data, const PoolRange& pool, Span data_span,
                      Span pool_span, const Neighbours& result) {
  LaneSearch(table, data, pool, data_span, pool_span).search(result);
}

}  // namespace naign::cpu
