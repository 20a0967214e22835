// What the threads of a packed search share: the inputs, the running result, and the filter of the
// moment.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "imle_knn/cpu/filter.h"
#include "imle_knn/cpu/projection.h"
#include "imle_knn/cpu/rows.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// The block of a pool that tries the projection.
constexpr int64_t trial_block = 3;

struct Problem {
  const Kernels& kernels;
  Matrix matrix;
  Rows data;
  Rows pool;
  int64_t first_index;
  double reject_below;
  Neighbours result;
  double squared_scale;           // scaled squared distance = this * squared distance
  std::vector<std::mutex> locks;  // one a panel, for its rows of the result

  // The projection may be nullptr.
  Problem(const Matrix& values, const PackedData& packed, const Projection* projection,
          const PoolRange& range, const Neighbours& neighbours);

  double worst(int64_t row) const {
    double& last = result.distances[row * result.k + result.k - 1];
    return std::atomic_ref(last).load(std::memory_order_relaxed);
  }

  // The full filter of the moment.
  const Stage& stage() const { return *current_.load(std::memory_order_acquire); }

  // What to use on a block. A projection gives no upper bounds, so the first blocks of a pool,
  // which have none yet, go to the full filter; a short block then shows whether it discards
  // enough.
  const Stage& stage_for(int64_t block) const;

  void pass_trial(const Stage& stage);
  bool projection_pays() const { return trial_ != Trial::failed; }

  // Goes on without the filter that kept too many pairs.
  void leave(const Stage& from);

  // The tightest packing that was made on the way, if any.
  std::unique_ptr<PackedData> take_tightest();

 private:
  enum class Trial { pending, passed, failed };

  // The next tighter filter, unless another thread has already left `from`.
  void tighten(const Stage& from);

  Stage first_;
  std::atomic<const Stage*> current_;
  std::mutex tightening_;
  std::vector<std::unique_ptr<PackedData>> tighter_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::optional<Stage> projected_;
  std::atomic<Trial> trial_{Trial::failed};
};

}  // namespace naign::cpu
