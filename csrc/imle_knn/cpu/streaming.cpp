#include "imle_knn/cpu/streaming.h"

#include <algorithm>
#include <utility>

#include "common/subnormals.h"
#include "imle_knn/cpu/methods.h"
#include "imle_knn/cpu/packed_search.h"
#include "imle_knn/cpu/principal_axes.h"

namespace naign::cpu {
namespace {

// Projecting a pool row costs as much as comparing it with a few hundred data rows.
constexpr int64_t least_projected_rows = 512;
constexpr int64_t least_projected_columns = 4 * axes_rank;
// Only a search that is used again repays finding the axes.
constexpr int64_t pairs_before_projection = 1 << 22;

}  // namespace

StreamingSearch::StreamingSearch(const Matrix& data, int64_t k, double reject_below)
    : data_(data),
      k_(k),
      reject_below_(reject_below),
      distances_(data.rows * k),
      indices_(data.rows * k) {
  reset();
}

Neighbours StreamingSearch::neighbours() {
  return {distances_.data(), indices_.data(), data_.rows, k_};
}

void StreamingSearch::reset() {
  const std::lock_guard guard(mutex_);
  neighbours().clear();
  fresh_ = true;
}

void StreamingSearch::update(const Matrix& pool, int64_t first_index, const Parallel& threads) {
  const std::lock_guard guard(mutex_);
  const KeepSubnormals here;
  const Parallel parallel = keeping_subnormals(threads);
  if (data_.rows == 0 || pool.rows == 0) return;
  const PoolRange range{pool, first_index, reject_below_};
  const Choice choice = choose_method(data_, range, k_);
  if (choice.method == Method::packed) {
    update_packed(range, parallel);
  } else {
    search_unpacked(choice, data_, range, neighbours(), parallel);
  }
  fresh_ = false;
  rows_seen_ += pool.rows;
}

void StreamingSearch::update_packed(const PoolRange& pool, const Parallel& parallel) {
  if (needs_packing(pool.rows)) {
    projection_.reset();
    packed_ = std::make_unique<PackedData>(
        pack_data(data_, pool.rows, first_filter(data_.columns), parallel));
  }
  if (projection_ == nullptr && projection_would_pay()) project(parallel);
  Outcome outcome = search_packed(data_, *packed_, projection_.get(), pool, neighbours(), parallel);
  // Centre and scale stay, so that the projection goes with the tighter packing as well.
  if (outcome.tighter != nullptr) packed_ = std::move(outcome.tighter);
  if (!outcome.projection_pays) {
    projection_.reset();
    projection_failed_ = true;
  }
}

// The packing has a centre near the pool; a pool that moved far away, as at a restart, gets a new
// one.
bool StreamingSearch::needs_packing(const Matrix& pool) const {
  if (packed_ == nullptr || packed_->isa != isa()) return true;
  return fresh_ && !packing_fits(*packed_, pool);
}

bool StreamingSearch::projection_would_pay() const {
  if (projection_failed_ || !can_project(data_.columns)) return false;
  if (data_.rows < least_projected_rows || data_.columns < least_projected_columns) return false;
  return projection_is_forced() || rows_seen_ * data_.rows >= pairs_before_projection;
}

void StreamingSearch::project(const Parallel& parallel) {
  if (axes_.empty()) axes_ = principal_axes(data_, parallel);
  const Matrix axes{axes_.data(), Dtype::float32, axes_rank, data_.columns, 1, axes_rank};
  projection_ = std::make_unique<Projection>(project_data(data_, *packed_, axes));
}

void StreamingSearch::result(float* distances, int64_t* indices) {
  const std::lock_guard guard(mutex_);
  finish(data_, neighbours(), distances);
  std::copy(indices_.begin(), indices_.end(), indices);
}

void StreamingSearch::get_running(double* distances, int64_t* indices) {
  const std::lock_guard guard(mutex_);
  std::copy(distances_.begin(), distances_.end(), distances);
  std::copy(indices_.begin(), indices_.end(), indices);
}

void StreamingSearch::set_running(const double* distances, const int64_t* indices) {
  const std::lock_guard guard(mutex_);
  std::copy_n(distances, distances_.size(), distances_.begin());
  std::copy_n(indices, indices_.size(), indices_.begin());
  fresh_ = false;
}

bool StreamingSearch::projects() {
  const std::lock_guard guard(mutex_);
  return projection_ != nullptr;
}

}  // namespace naign::cpu
