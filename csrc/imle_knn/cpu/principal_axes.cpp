// Subspace iteration (Halko, Martinsson and Tropp, 2011, algorithm 4.4) on a sample of the rows:
// from random vectors Q, Q <- orthonormal basis of A^T (A Q), again and again.
#include "imle_knn/cpu/principal_axes.h"

#include <algorithm>
#include <cmath>

#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/rows.h"

namespace naign::cpu {
namespace {

static_assert(axes_rank == product_columns);

constexpr int64_t most_sampled_rows = 2048;
constexpr int64_t most_sampled_numbers = 1 << 25;
constexpr int iterations = 5;
// Of what is left of a vector's squared length: less is rounding.
constexpr double least_part = 1e-12;

struct Sample {
  std::vector<float> values;  // row-major
  int64_t rows;
  int64_t columns;
};

// Finite rows at equal distances.
Sample draw(const Matrix& data, const Kernels& table) {
  const Rows rows(data, table);
  const int64_t most =
      std::clamp(most_sampled_numbers / data.columns, axes_rank, most_sampled_rows);
  const int64_t wanted = std::min(data.rows, most);
  Sample sample{std::vector<float>(wanted * data.columns), 0, data.columns};
  for (int64_t i = 0; i < wanted; ++i) {
    float* out = sample.values.data() + sample.rows * data.columns;
    const float* row = rows.get(i * data.rows / wanted, out);
    if (row != out) std::copy_n(row, data.columns, out);
    if (table.all_finite(out, data.columns)) ++sample.rows;
  }
  return sample;
}

// Takes the mean away and brings the largest magnitude to one.
void normalise(Sample& sample) {
  std::vector<double> mean(sample.columns, 0.0);
  for (int64_t i = 0; i < sample.rows; ++i) {
    const float* row = sample.values.data() + i * sample.columns;
    for (int64_t k = 0; k < sample.columns; ++k) mean[k] += row[k];
  }
  double largest = 0;
  for (double& value : mean) value /= static_cast<double>(std::max<int64_t>(1, sample.rows));
  for (int64_t i = 0; i < sample.rows; ++i) {
    const float* row = sample.values.data() + i * sample.columns;
    for (int64_t k = 0; k < sample.columns; ++k) {
      largest = std::max(largest, std::fabs(row[k] - mean[k]));
    }
  }
  const double scale = largest > 0 ? 1 / largest : 0;
  for (int64_t i = 0; i < sample.rows; ++i) {
    float* row = sample.values.data() + i * sample.columns;
    for (int64_t k = 0; k < sample.columns; ++k) {
      row[k] = static_cast<float>((row[k] - mean[k]) * scale);
    }
  }
}

// Signs from a counter: the mixing function of SplitMix64 (Steele, Lea and Flood, 2014).
float sign_of(uint64_t counter) {
  uint64_t z = (counter + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return ((z ^ (z >> 31)) & 1) != 0 ? 1.0f : -1.0f;
}

// out = left times right; pieces of the depth that the caches hold, in order, for every row.
void multiply(const Products& whole, int64_t depth_step, const Kernels& table,
              const Parallel& parallel) {
  constexpr int64_t rows_of_piece = 128;
  std::fill_n(whole.out, whole.rows * product_columns, 0.0f);
  parallel.run((whole.rows + rows_of_piece - 1) / rows_of_piece, [&](int64_t piece) {
    const int64_t first = piece * rows_of_piece;
    Products work = whole;
    work.rows = std::min(rows_of_piece, whole.rows - first);
    work.out = whole.out + first * product_columns;
    for (int64_t k = 0; k < whole.depth; k += depth_step) {
      work.left = whole.left + first * whole.row_stride + k * whole.depth_stride;
      work.right = whole.right + k * product_columns;
      work.depth = std::min(depth_step, whole.depth - k);
      table.add_products(work);
    }
  });
}

// The modified Gram-Schmidt process on the columns of q (rows, axes_rank).
void orthonormalise(std::vector<float>& q) {
  const auto rows = static_cast<int64_t>(q.size()) / axes_rank;
  double before[axes_rank]{};
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t c = 0; c < axes_rank; ++c) {
      before[c] += double{q[i * axes_rank + c]} * double{q[i * axes_rank + c]};
    }
  }
  for (int64_t c = 0; c < axes_rank; ++c) {
    float products[axes_rank]{};
    for (int64_t i = 0; i < rows; ++i) {
      const float* row = q.data() + i * axes_rank;
      for (int64_t other = 0; other < axes_rank; ++other) products[other] += row[c] * row[other];
    }
    const float squared = products[c];
    const float inverse = squared > least_part * before[c] ? 1 / std::sqrt(squared) : 0;
    for (float& product : products) product *= inverse;
    for (int64_t i = 0; i < rows; ++i) {
      float* row = q.data() + i * axes_rank;
      const float value = row[c] * inverse;
      row[c] = value;
      for (int64_t other = c + 1; other < axes_rank; ++other) row[other] -= value * products[other];
    }
  }
}

}  // namespace

std::vector<float> principal_axes(const Matrix& data, const Parallel& parallel) {
  constexpr int64_t long_step = 256;
  constexpr int64_t short_step = 16;  // rows of the sample that are read at once, a column of each
  const Kernels& table = kernels(isa());
  Sample sample = draw(data, table);
  normalise(sample);
  std::vector<float> q(data.columns * axes_rank);
  for (size_t i = 0; i < q.size(); ++i) q[i] = sign_of(i);
  std::vector<float> z(sample.rows * axes_rank);
  const float* a = sample.values.data();
  for (int i = 0; i < iterations; ++i) {
    multiply({a, data.columns, 1, sample.rows, data.columns, q.data(), z.data()}, long_step, table,
             parallel);
    multiply({a, 1, data.columns, data.columns, sample.rows, z.data(), q.data()}, short_step, table,
             parallel);
    orthonormalise(q);
  }
  // Once more: where the data vary little, the first time leaves rounding errors of the other axes.
  orthonormalise(q);
  return q;
}

}  // namespace naign::cpu
