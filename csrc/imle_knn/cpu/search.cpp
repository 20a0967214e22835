// Exact search: a low-precision filter with a rigorous bound discards nearly all pairs, the
// distances of the rest are computed as the contract defines them. docs/exactness.md proves it.
#include "imle_knn/imle_knn.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "common/aligned.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/filter.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/cpu/nearest.h"
#include "imle_knn/cpu/packed_data.h"
#include "imle_knn/cpu/projection.h"
#include "imle_knn/cpu/rows.h"

namespace naign {

void Neighbours::clear() const {
  std::fill_n(distances, rows * k, infinity);
  std::fill_n(indices, rows * k, int64_t{-1});
}

namespace cpu {
namespace {

constexpr int64_t tiles_per_block = 16;
constexpr int64_t most_tiles = 64;
constexpr int64_t short_block_bytes = 256 << 10;
constexpr int64_t block_bytes = 2 << 20;
constexpr int64_t sums_bytes = 4 << 20;
constexpr int64_t units_per_chunk = 512;

// The block of a pool that tries the projection, and its outcome.
constexpr int64_t trial_block = 3;
constexpr int64_t trial_tiles = 2;
enum class Trial { pending, passed, failed };

struct Candidate {
  int32_t lane;
  int32_t row;  // of the block
  float score;
};

struct Problem {
  const Kernels& kernels;
  Matrix matrix;
  Rows data;
  Rows pool;
  int64_t first_index;
  double reject_below;
  Neighbours result;
  double unit;                    // scaled squared distance = unit * squared distance
  std::vector<std::mutex> locks;  // one a panel, for its rows of the result

  Problem(const Matrix& values, const PackedData& prepared, const Projection& projection,
          const PoolRange& range, const Neighbours& neighbours)
      : kernels(cpu::kernels(prepared.isa)),
        matrix(values),
        data(values, kernels),
        pool(range.rows, kernels),
        first_index(range.first_index),
        reject_below(range.reject_below),
        result(neighbours),
        unit(static_cast<double>(prepared.scale) * prepared.scale),
        locks(prepared.panels),
        first_(prepared),
        current_(&first_) {
    if (projection.data != nullptr) {
      const auto* axes = static_cast<const PackedData*>(projection.basis);
      projected_.emplace(*static_cast<const PackedData*>(projection.data), axes, values.columns);
      trial_ = Trial::pending;
    }
  }

  double worst(int64_t row) const {
    double& last = result.distances[row * result.k + result.k - 1];
    return std::atomic_ref(last).load(std::memory_order_relaxed);
  }

  // The full filter of the moment.
  const Stage& stage() const { return *current_.load(std::memory_order_acquire); }

  // What to use on a block. A projection gives no upper bounds, so the first blocks of a pool,
  // which have none yet, go to the full filter; a short block then shows whether it discards
  // enough.
  const Stage& stage_for(int64_t block) const {
    const Trial trial = trial_.load(std::memory_order_acquire);
    const bool projects = block == trial_block ? trial != Trial::failed : trial == Trial::passed;
    return block >= trial_block && projects ? *projected_ : stage();
  }

  bool projection_pays() const { return trial_ != Trial::failed; }

  void pass_trial(const Stage& stage) {
    Trial pending = Trial::pending;
    if (&stage != &this->stage()) trial_.compare_exchange_strong(pending, Trial::passed);
  }

  // Goes on without the filter that kept too many pairs.
  void leave(const Stage& from) {
    if (projected_ && &from == &*projected_) {
      trial_ = Trial::failed;
    } else if (from.packed.filter != Filter::float32) {
      tighten(from);
    }
  }

 private:
  // The next tighter filter, unless another thread has already left `from`.
  void tighten(const Stage& from) {
    const std::lock_guard guard(tightening_);
    if (&stage() != &from) return;
    const PackedData& old = from.packed;
    const PackedData layout = packed_layout(old.rows, old.columns, tighter_filter(old.filter));
    memory_.push_back(aligned_array<char>(layout.bytes()));
    auto& packed = *new (memory_.back().get()) PackedData(layout);
    pack_again(matrix, old, packed);
    stages_.push_back(std::make_unique<Stage>(packed));
    current_.store(stages_.back().get(), std::memory_order_release);
  }

  Stage first_;
  std::atomic<const Stage*> current_;
  std::mutex tightening_;
  std::vector<AlignedArray<char>> memory_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::optional<Stage> projected_;
  std::atomic<Trial> trial_{Trial::failed};
};

// How the panels x blocks grid is cut: blocks as long as the caches hold, groups of panels so small
// that the sums of long rows stay bounded and every thread gets several pieces.
struct Plan {
  int64_t block_rows;
  int64_t blocks;
  int64_t group_panels;
  int64_t groups;
  int64_t threads;
  int64_t trial_rows;  // length of the block that tries the projection

  int64_t first_row(int64_t block) const {
    return block <= trial_block ? block * block_rows : (block - 1) * block_rows + trial_rows;
  }
};

Plan plan_for(const Problem& problem, const Parallel& parallel) {
  const PackedData& packed = problem.stage().packed;
  const int64_t tile_rows = problem.kernels.tile_rows;
  const int64_t tile_bytes = packed.units * PackedData::unit_bytes * tile_rows;
  Plan plan{};
  // Short rows make long blocks, so that thresholds are set less often, but not so long that
  // threads run out of blocks.
  const int64_t long_block = std::clamp<int64_t>(
      problem.pool.count() / (tile_rows * 8 * parallel.threads), tiles_per_block, most_tiles);
  const int64_t tiles =
      std::clamp<int64_t>(short_block_bytes / tile_bytes, tiles_per_block, long_block);
  plan.block_rows = std::min(tiles, std::max<int64_t>(4, block_bytes / tile_bytes)) * tile_rows;
  plan.trial_rows = trial_tiles * tile_rows;
  const int64_t pool_rows = problem.pool.count();
  while (plan.first_row(plan.blocks) < pool_rows) ++plan.blocks;
  const int64_t wanted = std::max<int64_t>(1, 4 * parallel.threads / plan.blocks);
  const int64_t bounded = sums_bytes / (plan.block_rows * packed.lanes * 4);
  plan.group_panels = std::clamp<int64_t>((packed.panels + wanted - 1) / wanted, 1, bounded);
  plan.groups = (packed.panels + plan.group_panels - 1) / plan.group_panels;
  plan.threads = std::min(parallel.threads, plan.blocks * plan.groups);
  return plan;
}

// One thread's share: packs blocks of the pool and runs them past panels of the data.
class Worker {
 public:
  Worker(Problem& problem, const Stage& stage, const Plan& plan)
      : problem_(problem),
        stage_(stage),
        kernels_(problem.kernels),
        columns_(problem.pool.columns()),
        lanes_(kernels_.lanes),
        block_(plan.block_rows, stage.packed.units),
        chunks_((block_.units + units_per_chunk - 1) / units_per_chunk),
        scores_(aligned_array<float>(kernels_.tile_rows * lanes_)),
        thresholds_(aligned_array<float>(lanes_)),
        screen_(kernels_, columns_),
        row_(columns_),
        query_(columns_) {
    if (stage.basis != nullptr) projector_.emplace(*stage.basis, problem.stage().packed);
    if (chunks_ > 1) {
      sums_ = aligned_array<char>(plan.group_panels * plan.block_rows * lanes_ * 4);
    }
  }

  void load(int64_t first, int64_t count) {
    block_.clear(first, count);
    const int64_t tile_rows = kernels_.tile_rows;
    for (int64_t r = 0; r < (count + tile_rows - 1) / tile_rows * tile_rows; ++r) load_row(r);
    if (projector_) project();
  }

  // Returns the number of distances computed exactly.
  int64_t search(int64_t first_panel, int64_t last_panel) {
    evaluations_ = 0;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (int64_t panel = first_panel; panel < last_panel; ++panel) {
        run_panel(panel, panel - first_panel, chunk);
      }
    }
    return evaluations_;
  }

  const Stage& stage() const { return stage_; }

 private:
  void load_row(int64_t r) {
    if (r >= block_.count) return block_.exclude(r, RowKind::excluded);
    const float* values = problem_.pool.get(block_.first + r, row_.data());
    if (!kernels_.all_finite(values, columns_) || repeats(values, block_.first + r)) {
      return block_.exclude(r, RowKind::excluded);
    }
    if (!projector_) return block_.pack(r, values, stage_);
    block_.exclude(r, RowKind::excluded);
    to_project_.push_back(r);
  }

  // Projects the rows that load_row left, a tile at a time.
  void project() {
    const int64_t tile_rows = kernels_.tile_rows;
    std::vector<float> scratch(problem_.pool.in_place() ? 0 : tile_rows * columns_);
    std::vector<const float*> rows(tile_rows);
    const auto left = static_cast<int64_t>(to_project_.size());
    for (int64_t first = 0; first < left; first += tile_rows) {
      const int64_t count = std::min(tile_rows, left - first);
      for (int64_t i = 0; i < count; ++i) {
        float* copy = scratch.empty() ? nullptr : scratch.data() + i * columns_;
        rows[i] = problem_.pool.get(block_.first + to_project_[first + i], copy);
      }
      projector_->project(rows.data(), count);
      for (int64_t i = 0; i < count; ++i) {
        const int64_t r = to_project_[first + i];
        if (projector_->kind(i) == RowKind::usual) {
          block_.pack(r, projector_->values(i), stage_, projector_->error(i));
        } else {
          block_.exclude(r, RowKind::wild);
        }
      }
    }
    to_project_.clear();
  }

  // A row equal to the one before it cannot be the single nearest: the tie goes to the other.
  bool repeats(const float* values, int64_t row) {
    if (problem_.result.k > 1 || row == 0) return false;
    const float* previous = problem_.pool.get(row - 1, query_.data());
    return std::memcmp(values, previous, columns_ * sizeof(float)) == 0;
  }

  void run_panel(int64_t panel, int64_t slot, int64_t chunk) {
    constexpr int64_t bytes = PackedData::unit_bytes;
    const int64_t first_unit = block_.units * chunk / chunks_;
    Tile tile{};
    tile.panel = stage_.packed.panel(panel) + first_unit * lanes_ * bytes;
    tile.row_stride = block_.row_stride;
    tile.units = block_.units * (chunk + 1) / chunks_ - first_unit;
    tile.first = chunk == 0;
    tile.last = chunk + 1 == chunks_;
    tile.lane_scale = stage_.packed.lane_scales() + panel * lanes_;
    tile.threshold = thresholds_.get();
    tile.scores = scores_.get();
    if (tile.last) set_thresholds(panel);
    const int64_t tile_rows = kernels_.tile_rows;
    const int64_t block_rows = static_cast<int64_t>(block_.kind.size());
    for (int64_t r = 0; r < block_.count; r += tile_rows) {
      tile.rows = block_.row(r) + first_unit * bytes;
      tile.row_norm = block_.norm.get() + r;
      tile.row_scale = block_.scale.get() + r;
      tile.row_start = block_.start.get() + r;
      if (sums_) tile.sums = sums_.get() + (slot * block_rows + r) * lanes_ * bytes;
      if (const uint64_t hit = stage_.filter.tile(tile)) collect(panel, r, hit);
    }
    if (tile.last) evaluate(panel);
  }

  const Query& query(int64_t panel, int64_t lane) const {
    return stage_.packed.queries()[panel * lanes_ + lane];
  }

  float threshold(const Query& query, double squared) const {
    return round_up(stage_.bounds.score_beyond(query, squared * problem_.unit, block_.largest_error,
                                               block_.largest_reach));
  }

  void set_thresholds(int64_t panel) {
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      const Query& q = query(panel, lane);
      float& limit = thresholds_[lane];
      if (q.kind == RowKind::excluded) {
        limit = -float_infinity;
      } else if (q.kind == RowKind::wild) {
        limit = float_infinity;
      } else {
        limit = threshold(q, problem_.worst(panel * lanes_ + lane));
      }
    }
  }

  // Keeps the rows of a tile whose score matters.
  void collect(int64_t panel, int64_t first_row, uint64_t hit) {
    const int64_t rows = std::min(kernels_.tile_rows, block_.count - first_row);
    for (; hit != 0; hit &= hit - 1) {
      const int64_t lane = std::countr_zero(hit);
      const Query& q = query(panel, lane);
      if (q.kind == RowKind::excluded) continue;
      if (may_tighten(q)) tighten(q, lane, rows);
      const double rejected = rejected_score(q);
      for (int64_t r = 0; r < rows; ++r) {
        const float score = scores_[r * lanes_ + lane];
        if (score <= thresholds_[lane] && !(score < rejected) &&
            block_.kind[first_row + r] == RowKind::usual) {
          candidates_.push_back(
              {static_cast<int32_t>(lane), static_cast<int32_t>(first_row + r), score});
        }
      }
    }
  }

  bool may_tighten(const Query& q) const {
    return problem_.result.k == 1 && q.kind == RowKind::usual && stage_.bounds_from_above();
  }

  // The best score of a tile already bounds the nearest distance from above.
  void tighten(const Query& q, int64_t lane, int64_t rows) {
    const float admissible = admissible_score(q);
    float best = float_infinity;
    for (int64_t r = 0; r < rows; ++r) {
      const float score = scores_[r * lanes_ + lane];
      if (score < best && score > admissible) best = score;
    }
    if (!(best <= thresholds_[lane]) || best == float_infinity) return;
    const double squared = upper(q, best) / problem_.unit;
    thresholds_[lane] = std::min(thresholds_[lane], threshold(q, squared));
  }

  double upper(const Query& q, float score) const {
    return stage_.bounds.upper(q, score, block_.largest_error, block_.largest_reach);
  }

  // Pairs with a score above this are certainly not rejected.
  float admissible_score(const Query& q) const {
    if (problem_.reject_below <= 0) return -float_infinity;
    return threshold(q, problem_.reject_below);
  }

  // Pairs with a score below this are certainly rejected.
  double rejected_score(const Query& q) const {
    if (problem_.reject_below <= 0 || q.kind != RowKind::usual) return -infinity;
    if (!stage_.bounds_from_above()) return -infinity;
    return stage_.bounds.score_within(q, problem_.reject_below * problem_.unit,
                                      block_.largest_error, block_.largest_reach);
  }

  void evaluate(int64_t panel) {
    if (block_.any_wild) add_wild_rows(panel);
    if (candidates_.empty()) return;
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
      return a.lane != b.lane ? a.lane < b.lane : a.score < b.score;
    });
    for (size_t begin = 0; begin < candidates_.size();) {
      size_t end = begin;
      while (end < candidates_.size() && candidates_[end].lane == candidates_[begin].lane) ++end;
      evaluate_lane(panel, candidates_.data() + begin, candidates_.data() + end);
      begin = end;
    }
    candidates_.clear();
  }

  void add_wild_rows(int64_t panel) {
    for (int64_t r = 0; r < block_.count; ++r) {
      if (block_.kind[r] != RowKind::wild) continue;
      for (int64_t lane = 0; lane < lanes_; ++lane) {
        if (query(panel, lane).kind == RowKind::excluded) continue;
        candidates_.push_back(
            {static_cast<int32_t>(lane), static_cast<int32_t>(r), float_infinity});
      }
    }
  }

  void evaluate_lane(int64_t panel, const Candidate* begin, const Candidate* end) {
    const int64_t lane = begin->lane;
    const int64_t row = panel * lanes_ + lane;
    const Query& q = query(panel, lane);
    const double known = bound_from_scores(q, begin, end);
    const float* x = problem_.data.get(row, query_.data());
    for (const Candidate* candidate = begin; candidate != end; ++candidate) {
      const double bound = std::min(known, problem_.worst(row));
      if (certainly_farther(q, *candidate, bound)) continue;
      const float* y = problem_.pool.get(block_.first + candidate->row, row_.data());
      ++evaluations_;
      if (screen_.farther(x, y, bound)) continue;
      const double distance = kernels_.distance(x, y, columns_);
      if (distance < problem_.reject_below || distance > problem_.worst(row)) continue;
      const std::lock_guard guard(problem_.locks[panel]);
      insert(problem_.result, row, distance, problem_.first_index + block_.first + candidate->row);
    }
  }

  // k rows with certified upper bounds: the k-th smallest bounds the k-th nearest distance.
  double bound_from_scores(const Query& q, const Candidate* begin, const Candidate* end) const {
    if (q.kind != RowKind::usual || !stage_.bounds_from_above()) return infinity;
    const float admissible = admissible_score(q);
    const Candidate* first = begin;
    while (first != end && !(first->score > admissible)) ++first;
    if (end - first < problem_.result.k) return infinity;
    const float score = first[problem_.result.k - 1].score;
    return std::isfinite(score) ? upper(q, score) / problem_.unit : infinity;
  }

  bool certainly_farther(const Query& q, const Candidate& candidate, double bound) const {
    if (q.kind != RowKind::usual || block_.kind[candidate.row] != RowKind::usual) return false;
    const double lower = stage_.bounds.lower(q, candidate.score, block_.error[candidate.row],
                                             block_.reach[candidate.row]);
    return lower > bound * problem_.unit * (1 + 2 * stage_.bounds.slack);
  }

  Problem& problem_;
  const Stage& stage_;
  const Kernels& kernels_;
  int64_t columns_;
  int64_t lanes_;
  Block block_;
  int64_t chunks_;
  AlignedArray<char> sums_;
  AlignedArray<float> scores_;
  AlignedArray<float> thresholds_;
  Screen screen_;
  std::vector<float> row_;
  std::vector<float> query_;
  std::vector<Candidate> candidates_;
  int64_t evaluations_ = 0;
  std::optional<Projector> projector_;
  std::vector<int64_t> to_project_;
};

// True where a filter kept so many of the pairs of a block that the next one is cheaper: an exact
// distance costs about as much as 40 pairs in the cheapest filter. Rows first, first + 1, ... of a
// pool in random order hold about k log((first + count) / first) new neighbours of each data row,
// which no filter may discard.
bool keeps_too_many(int64_t evaluations, int64_t queries, int64_t first, int64_t count, int64_t k) {
  constexpr double pairs_worth_one_distance = 40;
  if (first < 2 * k) return false;
  const auto seen = static_cast<double>(first);
  const double found = static_cast<double>(k) * std::log1p(static_cast<double>(count) / seen);
  const double kept = static_cast<double>(evaluations) - 2 * found * static_cast<double>(queries);
  return kept * pairs_worth_one_distance >
         static_cast<double>(queries) * static_cast<double>(count);
}

}  // namespace

Outcome search(const Matrix& data, const void* packed, const Projection& projection,
               const PoolRange& pool, const Neighbours& result, const Parallel& parallel) {
  const auto& prepared = *static_cast<const PackedData*>(packed);
  if (data.rows == 0 || pool.rows.rows == 0) return {prepared.filter, true};
  Problem problem(data, prepared, projection, pool, result);
  const Plan plan = plan_for(problem, parallel);
  const int64_t items = plan.blocks * plan.groups;
  std::atomic<int64_t> next{0};
  parallel.run(plan.threads, [&](int64_t) {
    std::optional<Worker> worker;
    int64_t loaded = -1;
    for (int64_t item = next++; item < items; item = next++) {
      const int64_t block = item / plan.groups;
      const Stage& stage = problem.stage_for(block);
      if (!worker || &worker->stage() != &stage) {
        worker.emplace(problem, stage, plan);
        loaded = -1;
      }
      const int64_t first = plan.first_row(block);
      const int64_t count = std::min(plan.first_row(block + 1), pool.rows.rows) - first;
      if (block != loaded) worker->load(first, count);
      loaded = block;
      const int64_t first_panel = item % plan.groups * plan.group_panels;
      const int64_t last_panel = std::min(first_panel + plan.group_panels, prepared.panels);
      const int64_t evaluations = worker->search(first_panel, last_panel);
      const int64_t queries = (last_panel - first_panel) * prepared.lanes;
      const bool enough_left = items - item > 2 * plan.threads;
      if (!keeps_too_many(evaluations, queries, first, count, result.k)) {
        problem.pass_trial(stage);
      } else if (enough_left) {
        problem.leave(stage);
      }
    }
  });
  return {problem.stage().packed.filter, problem.projection_pays()};
}

void finish(const Matrix& data, const Neighbours& result, float* distances) {
  const Kernels& table = kernels(isa());
  const Rows rows(data, table);
  std::vector<float> scratch(rows.in_place() ? 0 : data.columns);
  for (int64_t i = 0; i < result.rows; ++i) {
    const bool empty = result.indices[i * result.k] < 0;
    const bool usable = !empty || table.all_finite(rows.get(i, scratch.data()), data.columns);
    for (int64_t n = i * result.k; n < (i + 1) * result.k; ++n) {
      distances[n] = usable ? static_cast<float>(result.distances[n])
                            : std::numeric_limits<float>::quiet_NaN();
    }
  }
}

const Kernels& kernels(Isa isa) {
  return with_isa(isa, [](auto set) -> const Kernels& { return kernels<set()>(); });
}

}  // namespace cpu
}  // namespace naign
