#include "imle_knn/cpu/block_loader.h"

#include <algorithm>
#include <cstring>

namespace naign::cpu {

BlockLoader::BlockLoader(const Problem& problem, const Stage& stage, int64_t block_rows)
    : problem_(problem),
      stage_(stage),
      block_(block_rows, stage.packed.units),
      row_(problem.pool.columns()),
      previous_(problem.pool.columns()) {
  if (stage.axes != nullptr) projector_.emplace(*stage.axes, problem.stage().packed);
}

void BlockLoader::load(int64_t first, int64_t count) {
  block_.clear(first, count);
  const int64_t tile_rows = problem_.kernels.tile_rows;
  for (int64_t r = 0; r < (count + tile_rows - 1) / tile_rows * tile_rows; ++r) load_row(r);
  if (projector_) project();
}

void BlockLoader::load_row(int64_t r) {
  if (r >= block_.count) return block_.exclude(r, RowKind::excluded);
  const float* values = problem_.pool.get(block_.first + r, row_.data());
  if (!problem_.kernels.all_finite(values, problem_.pool.columns()) ||
      repeats(values, block_.first + r)) {
    return block_.exclude(r, RowKind::excluded);
  }
  if (!projector_) return block_.pack(r, values, stage_);
  block_.exclude(r, RowKind::excluded);
  to_project_.push_back(r);
}

// Projects the rows that load_row left, a tile at a time.
void BlockLoader::project() {
  const int64_t tile_rows = problem_.kernels.tile_rows;
  const int64_t columns = problem_.pool.columns();
  std::vector<float> scratch(problem_.pool.in_place() ? 0 : tile_rows * columns);
  std::vector<const float*> rows(tile_rows);
  const auto left = static_cast<int64_t>(to_project_.size());
  for (int64_t first = 0; first < left; first += tile_rows) {
    const int64_t count = std::min(tile_rows, left - first);
    for (int64_t i = 0; i < count; ++i) {
      float* copy = scratch.empty() ? nullptr : scratch.data() + i * columns;
      rows[i] = problem_.pool.get(block_.first + to_project_[first + i], copy);
    }
    projector_->project(rows.data(), count);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t r = to_project_[first + i];
      if (projector_->kind(i) == RowKind::usual) {
        block_.pack(r, projector_->values(i), stage_, projector_->error(i));
      } else {
        block_.exclude(r, RowKind::out_of_range);
      }
    }
  }
  to_project_.clear();
}

// A row equal to the one before it cannot be the single nearest: the tie goes to the other.
bool BlockLoader::repeats(const float* values, int64_t row) {
  if (problem_.result.k > 1 || row == 0) return false;
  const float* previous = problem_.pool.get(row - 1, previous_.data());
  return std::memcmp(values, previous, problem_.pool.columns() * sizeof(float)) == 0;
}

}  // namespace naign::cpu
