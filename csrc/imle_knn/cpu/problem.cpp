#include "imle_knn/cpu/problem.h"

#include <utility>

namespace naign::cpu {

Problem::Problem(const Matrix& values, const PackedData& packed, const Projection* projection,
                 const PoolRange& range, const Neighbours& neighbours)
    : kernels(cpu::kernels(packed.isa)),
      matrix(values),
      data(values, kernels),
      pool(range.rows, kernels),
      first_index(range.first_index),
      reject_below(range.reject_below),
      result(neighbours),
      squared_scale(static_cast<double>(packed.scale) * packed.scale),
      locks(packed.panels),
      first_(packed),
      current_(&first_) {
  if (projection != nullptr) {
    projected_.emplace(projection->data, &projection->axes, values.columns);
    trial_ = Trial::pending;
  }
}

const Stage& Problem::stage_for(int64_t block) const {
  const Trial trial = trial_.load(std::memory_order_acquire);
  const bool projects = block == trial_block ? trial != Trial::failed : trial == Trial::passed;
  return block >= trial_block && projects ? *projected_ : stage();
}

void Problem::pass_trial(const Stage& stage) {
  Trial pending = Trial::pending;
  if (&stage != &this->stage()) trial_.compare_exchange_strong(pending, Trial::passed);
}

void Problem::leave(const Stage& from) {
  if (projected_ && &from == &*projected_) {
    trial_ = Trial::failed;
  } else if (from.packed.filter != Filter::float32) {
    tighten(from);
  }
}

void Problem::tighten(const Stage& from) {
  const std::lock_guard guard(tightening_);
  if (&stage() != &from) return;
  tighter_.push_back(std::make_unique<PackedData>(
      pack_again(matrix, from.packed, tighter_filter(from.packed.filter))));
  stages_.push_back(std::make_unique<Stage>(*tighter_.back()));
  current_.store(stages_.back().get(), std::memory_order_release);
}

std::unique_ptr<PackedData> Problem::take_tightest() {
  return tighter_.empty() ? nullptr : std::move(tighter_.back());
}

}  // namespace naign::cpu
