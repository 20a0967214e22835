// The CUDA search step by step on one thread: csrc/cuda/imle_knn.cu, with loops for kernels.
#include "imle_knn/emulation.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/cuda/packing.h"

namespace naign::emulation {
namespace {

using cuda::Candidate;
using cuda::Frame;
using cuda::PackedQuery;
using cuda::panel_rows;
using cuda::PoolColumn;
using cuda::RowBound;

constexpr int64_t sample_rows = 64;

// Both sides as contiguous float32 rows.
struct Values {
  int64_t rows;
  int64_t columns;
  std::vector<float> values;

  explicit Values(const Matrix& matrix)
      : rows(matrix.rows), columns(matrix.columns), values(matrix.rows * matrix.columns) {
    const cpu::Kernels& table = cpu::kernels(cpu::isa());
    for (int64_t r = 0; r < rows; ++r) {
      table.widen(matrix.row(r), matrix.dtype, matrix.column_stride, columns, &values[r * columns]);
    }
  }
  const float* row(int64_t r) const { return values.data() + r * columns; }
  bool repeats(int64_t r) const { return std::equal(row(r), row(r) + columns, row(r - 1)); }
  bool finite(int64_t r) const {
    return std::all_of(row(r), row(r) + columns, [](float v) { return std::isfinite(v); });
  }
};

float median_magnitude(const Values& values, const std::vector<float>& centre) {
  std::vector<float> found;
  const int64_t count = std::min(sample_rows, values.rows);
  for (int64_t i = 0; i < count; ++i) {
    const float* row = values.row(i * values.rows / count);
    float most = 0;
    for (int64_t k = 0; k < values.columns; ++k) {
      most = std::max(most, std::abs(row[k] - centre[k]));
      if (!std::isfinite(row[k])) most = float_infinity;
    }
    if (std::isfinite(most)) found.push_back(most);
  }
  if (found.empty()) return 0;
  std::sort(found.begin(), found.end());
  return found[found.size() / 2];
}

// A centre and a power of two; any choice must do, this one takes the mean of a sample.
struct Framing {
  Frame frame;
  std::vector<float> centre;

  Framing(const Values& data, const Values& pool) : centre(pool.columns) {
    const float usual = median_magnitude(pool, centre);
    std::vector<float> mean(pool.columns);
    const int64_t count = std::min(sample_rows, pool.rows);
    int64_t taken = 0;
    for (int64_t i = 0; i < count; ++i) {
      const float* row = pool.row(i * pool.rows / count);
      const bool fits =
          std::all_of(row, row + pool.columns, [&](float v) { return std::abs(v) <= 8 * usual; });
      if (!fits) continue;
      for (int64_t k = 0; k < pool.columns; ++k) mean[k] += row[k] / sample_rows;
      ++taken;
    }
    for (float& m : mean) m *= taken > 0 ? static_cast<float>(sample_rows) / taken : 0;
    const float size = std::max(median_magnitude(pool, mean), median_magnitude(data, mean));
    const bool usable = size > 0 && std::isfinite(size);
    const float scale = usable ? std::ldexp(1.0f, std::clamp(-std::ilogb(size), -126, 126)) : 1.0f;
    frame = {scale, static_cast<double>(scale) * scale};
    for (int64_t k = 0; k < pool.columns; ++k) {
      const float value = mean[k] * scale;
      centre[k] = std::isfinite(value) ? value : 0;
    }
  }
};

// Packed rows of either side.
struct Packed {
  int64_t slabs;
  int digits;
  std::vector<int8_t> values;
  std::vector<cuda::PackedRowInfo> rows;
  std::vector<RowBound> panels;

  Packed(int64_t count, int64_t columns, int row_digits)
      : slabs(cuda::slabs_of(columns)),
        digits(row_digits),
        values(cuda::round_to(count, cuda::widest_tile) * slabs * row_digits * cuda::slab_bytes),
        rows(cuda::round_to(count, cuda::widest_tile), {0, 0, 0, 0, RowKind::excluded}),
        panels(rows.size() / panel_rows, {0, 0}) {}

  void pack(int64_t at, const float* row, bool finite, int64_t columns, const Framing& framing) {
    cuda::RowSums sums{};
    sums.finite = finite;
    std::vector<float> a(columns);
    float squares[partial_sums]{};
    for (int64_t k = 0; k < columns; ++k) {
      a[k] = cuda::centred(row[k], framing.frame.scale, framing.centre[k]);
      sums.extent.largest = std::max(sums.extent.largest, std::abs(a[k]));
      squares[k % partial_sums] += a[k] * a[k];
    }
    sums.extent.reach = reach_of(total(squares), columns);
    const bool packs = finite && !sums.extent.packs_as_zeros();
    sums.unit = finite ? integer_unit(sums.extent, cuda::levels_of(digits)) : 1;
    const float inverse = packs ? 1 / sums.unit : 0;
    float errors[partial_sums]{};
    for (int64_t k = 0; k < columns; ++k) {
      const cuda::Quantised q = cuda::quantise(finite ? a[k] : 0, sums.unit, inverse);
      const int integer = packs ? q.integer : 0;
      errors[k % partial_sums] += q.error * q.error;
      sums.squared_integers += static_cast<int64_t>(integer) * integer;
      store(at, k, integer);
    }
    sums.squared_errors = total(errors);
    rows[at] = cuda::packed_row_info(sums, columns);
    if (rows[at].kind != RowKind::usual) return;
    RowBound& panel = panels[at / panel_rows];
    panel.error = std::max(panel.error, rows[at].error);
    panel.reach = std::max(panel.reach, rows[at].reach);
  }

  // The sum as the kernels build it, slab after slab.
  static int32_t product(const Packed& x, int64_t row, const Packed& y, int64_t column) {
    return x.digits == 1 ? product<1>(x, row, y, column) : product<2>(x, row, y, column);
  }

 private:
  static float total(const float (&sums)[partial_sums]) {
    float halves[partial_sums];
    std::copy_n(sums, partial_sums, halves);
    for (int64_t width = partial_sums / 2; width > 0; width /= 2) {
      for (int64_t i = 0; i < width; ++i) halves[i] += halves[i + width];
    }
    return halves[0];
  }
  int8_t& at(int64_t row, int64_t k, int digit) {
    return values[cuda::packed_offset(row, k + digit * slabs * cuda::slab_bytes, slabs * digits)];
  }
  void store(int64_t row, int64_t k, int integer) {
    if (digits == 1) {
      at(row, k, 0) = static_cast<int8_t>(integer);
    } else {
      at(row, k, 0) = static_cast<int8_t>(cuda::high_digit(integer));
      at(row, k, 1) = static_cast<int8_t>(cuda::low_digit(integer));
    }
  }

  template <int digits>
  static int32_t product(const Packed& x, int64_t row, const Packed& y, int64_t column) {
    const cuda::Slabs<digits> slab{static_cast<int>(x.slabs)};
    const int64_t row_slabs = x.slabs * digits;
    int64_t sum = 0;
    for (int i = 0; i < slab.count(); ++i) {
      if (slab.shifts_before(i)) sum *= 128;
      constexpr int64_t piece = 16;  // what the swizzle keeps together
      for (int64_t byte = 0; byte < cuda::slab_bytes; byte += piece) {
        const int64_t x_byte = slab.query(i) * cuda::slab_bytes + byte;
        const int64_t y_byte = slab.pool(i) * cuda::slab_bytes + byte;
        const int8_t* a = &x.values[cuda::packed_offset(row, x_byte, row_slabs)];
        const int8_t* b = &y.values[cuda::packed_offset(column, y_byte, row_slabs)];
        for (int64_t j = 0; j < piece; ++j) sum += a[j] * b[j];
        // What a 32-bit accumulator would not hold must not occur, at any step.
        if (sum != static_cast<int32_t>(sum)) throw std::overflow_error("32-bit sum");
      }
    }
    return static_cast<int32_t>(sum);
  }
};

class Search {
 public:
  Search(const Matrix& data, const PoolRange& pool, const Neighbours& result,
         const cuda::FilterLimits& plan, int64_t tile_columns)
      : data_(data),
        pool_(pool.rows),
        first_index_(pool.first_index),
        reject_below_(pool.reject_below),
        result_(result),
        plan_(plan),
        tile_columns_(tile_columns),
        tightens_(result.k == 1 && !(pool.reject_below > 0)),
        framing_(data_, pool_),
        bounds_(Bounds::of_integers(data.columns, data.columns)),
        bound_(data.rows, infinity),
        counts_(data.rows, 0),
        lists_(data.rows * plan.capacity) {}

  Passes run() {
    const Packed queries = pack(data_, 0, data_.rows, 1, false);
    for (int64_t at = 0; at < pool_.rows;) {
      const int64_t count = plan_.next_chunk(at, pool_.rows - at);
      run_chunk(queries, at, count);
      at += count;
    }
    return passes_;
  }

 private:
  using Rows = std::vector<int64_t>;

  Packed pack(const Values& values, int64_t first, int64_t count, int digits, bool skips) const {
    Packed packed(count, values.columns, digits);
    for (int64_t r = 0; r < count; ++r) {
      if (skips && r > 0 && values.repeats(first + r)) continue;
      packed.pack(r, values.row(first + r), values.finite(first + r), values.columns, framing_);
    }
    return packed;
  }

  void run_chunk(const Packed& queries, int64_t first, int64_t count) {
    const Packed pool = pack(pool_, first, count, 1, result_.k == 1);
    Rows all(data_.rows);
    for (int64_t i = 0; i < data_.rows; ++i) all[i] = i;
    if (first == 0) seed(queries, pool, std::min(count, plan_.seed_rows));
    filter(queries, all, pool, count);
    Rows exact;
    const Rows overflow = rerank(queries, all, pool, first, count, exact);
    passes_.overflow += static_cast<int64_t>(overflow.size());
    if (!overflow.empty()) run_overflow(overflow, first, count, exact);
    passes_.exact += static_cast<int64_t>(exact.size());
    for (const int64_t row : exact) {
      for (int64_t j = 0; j < count; ++j) compare(row, first + j);
    }
  }

  void run_overflow(const Rows& rows, int64_t first, int64_t count, Rows& exact) {
    Packed queries(static_cast<int64_t>(rows.size()), data_.columns, 2);
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      queries.pack(static_cast<int64_t>(slot), data_.row(rows[slot]), data_.finite(rows[slot]),
                   data_.columns, framing_);
    }
    const int64_t part_rows = cuda::round_to(cuda::ceil_div(count, plan_.parts), cuda::widest_tile);
    for (int64_t part = 0; part < count; part += part_rows) {
      const int64_t part_count = std::min(part_rows, count - part);
      const Packed pool = pack(pool_, first + part, part_count, 2, result_.k == 1);
      filter(queries, rows, pool, part_count);
      const Rows again = rerank(queries, rows, pool, first + part, part_count, exact);
      exact.insert(exact.end(), again.begin(), again.end());
    }
  }

  float score(const Packed& queries, int64_t slot, const Packed& pool, int64_t column) const {
    return cuda::score_of(Packed::product(queries, slot, pool, column),
                          2 * PackedQuery::of(queries.rows[slot]).unit,
                          PoolColumn::of(pool.rows[column]));
  }

  void seed(const Packed& queries, const Packed& pool, int64_t count) {
    const int64_t groups = cuda::seed_groups(count);
    if (groups < result_.k) return;
    const RowBound all = cuda::bound_of_panels(pool.panels.data(), 0, count);
    for (int64_t row = 0; row < data_.rows; ++row) {
      const Query query = PackedQuery::of(queries.rows[row]).query;
      if (query.kind != RowKind::usual) continue;
      std::vector<float> best(groups, float_infinity);
      for (int64_t column = 0; column < cuda::round_to(count, cuda::seed_strip_rows); ++column) {
        const RowBound tile = tile_bound(pool, column);
        const float admissible =
            cuda::admissible_limit(bounds_, query, reject_below_, tile, framing_.frame);
        const float s = score(queries, row, pool, column);
        float& group = best[cuda::seed_group_of(column)];
        if (s > admissible) group = std::min(group, s);
      }
      std::nth_element(best.begin(), best.begin() + (result_.k - 1), best.end());
      const float kth = best[result_.k - 1];
      if (!std::isfinite(kth)) continue;
      const double above = cuda::distance_above(bounds_, query, kth, all, framing_.frame);
      bound_[row] = std::min(bound_[row], above);
    }
  }

  RowBound tile_bound(const Packed& pool, int64_t column) const {
    return cuda::bound_of_panels(pool.panels.data(), column / tile_columns_ * tile_columns_,
                                 tile_columns_);
  }

  void filter(const Packed& queries, const Rows& rows, const Packed& pool, int64_t count) {
    for (int64_t first = 0; first < count; first += tile_columns_) {
      for (size_t slot = 0; slot < rows.size(); ++slot) {
        filter_row(queries, static_cast<int64_t>(slot), rows[slot], pool, first);
      }
    }
  }

  // One data row's part of a tile.
  void filter_row(const Packed& queries, int64_t slot, int64_t row, const Packed& pool,
                  int64_t first) {
    const Query query = PackedQuery::of(queries.rows[slot]).query;
    const RowBound tile = tile_bound(pool, first);
    float limit = cuda::score_limit(bounds_, query, bound_[row], tile, framing_.frame);
    const float rejected =
        -round_up(-cuda::rejected_limit(bounds_, query, reject_below_, tile, framing_.frame));
    std::vector<float> scores(tile_columns_);
    float best = float_infinity;
    for (int64_t c = 0; c < tile_columns_; ++c) {
      scores[c] = score(queries, slot, pool, first + c);
      best = std::min(best, scores[c]);
    }
    if (!(best <= limit)) return;
    if (tightens_) {
      const double above = cuda::distance_above(bounds_, query, best, tile, framing_.frame);
      bound_[row] = std::min(bound_[row], above);
      limit = std::min(limit, cuda::score_limit(bounds_, query, above, tile, framing_.frame));
    }
    for (int64_t c = 0; c < tile_columns_; ++c) {
      if (!(scores[c] <= limit) || scores[c] < rejected) continue;
      if (counts_[row] < plan_.capacity) {
        lists_[row * plan_.capacity + counts_[row]] = {static_cast<int32_t>(first + c), scores[c]};
      }
      ++counts_[row];
      ++passes_.candidates;
    }
  }

  // Returns the rows whose lists overflowed.
  Rows rerank(const Packed& queries, const Rows& rows, const Packed& pool, int64_t first,
              int64_t count, Rows& exact) {
    Rows overflow;
    for (size_t slot = 0; slot < rows.size(); ++slot) {
      const int64_t row = rows[slot];
      const Query query = PackedQuery::of(queries.rows[slot]).query;
      if (query.kind == RowKind::wild) exact.push_back(row);
      if (query.kind != RowKind::usual) continue;
      const int64_t kept = std::min(counts_[row], plan_.capacity);
      Candidate* list = lists_.data() + row * plan_.capacity;
      std::sort(list, list + kept, [](const Candidate& a, const Candidate& b) {
        return a.score != b.score ? a.score < b.score : a.row < b.row;
      });
      for (int64_t i = 0; i < kept; ++i) {
        const cuda::PackedRowInfo& info = pool.rows[list[i].row];
        const double worst = std::min(bound_[row], kth(row));
        if (cuda::certainly_farther(bounds_, query, list[i].score, worst, {info.error, info.reach},
                                    framing_.frame)) {
          continue;
        }
        compare(row, first + list[i].row);
      }
      for (int64_t j = 0; j < count; ++j) {
        if (pool.rows[j].kind != RowKind::wild) continue;
        compare(row, first + j);
        ++passes_.wild;
      }
      bound_[row] = std::min(bound_[row], kth(row));
      if (counts_[row] > plan_.capacity) overflow.push_back(row);
      counts_[row] = 0;
    }
    return overflow;
  }

  double kth(int64_t row) const { return result_.distances[row * result_.k + result_.k - 1]; }

  void compare(int64_t row, int64_t pool_row) {
    const cpu::Kernels& table = cpu::kernels(cpu::isa());
    const double distance = table.distance(data_.row(row), pool_.row(pool_row), data_.columns);
    if (!std::isfinite(distance) || distance < reject_below_) return;
    const int64_t index = first_index_ + pool_row;
    const int64_t* found = result_.indices + row * result_.k;
    // A tighter filter may find a row again.
    if (std::find(found, found + result_.k, index) != found + result_.k) return;
    cpu::insert(result_, row, distance, index);
  }

  Values data_;
  Values pool_;
  int64_t first_index_;
  double reject_below_;
  Neighbours result_;
  cuda::FilterLimits plan_;
  int64_t tile_columns_;
  bool tightens_;
  Framing framing_;
  Bounds bounds_;
  std::vector<double> bound_;
  std::vector<int64_t> counts_;
  std::vector<Candidate> lists_;
  Passes passes_{};
};

}  // namespace

Passes search(const Matrix& data, const PoolRange& pool, const Neighbours& result,
              const cuda::FilterLimits& plan, int64_t tile_columns) {
  return Search(data, pool, result, plan, tile_columns).run();
}

}  // namespace naign::emulation
