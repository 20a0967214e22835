#include "imle_knn/cpu/panel_search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>

#include "imle_knn/cpu/nearest.h"

namespace naign::cpu {
namespace {

// Long rows are taken in chunks of this many units, which the nearest cache holds.
constexpr int64_t units_per_chunk = 512;

}  // namespace

PanelSearch::PanelSearch(Problem& problem, const Stage& stage, const Block& block,
                         int64_t group_panels)
    : problem_(problem),
      stage_(stage),
      block_(block),
      lanes_(problem.kernels.lanes),
      chunks_((block.units + units_per_chunk - 1) / units_per_chunk),
      scores_(aligned_array<float>(problem.kernels.tile_rows * lanes_)),
      thresholds_(aligned_array<float>(lanes_)),
      screen_(problem.kernels, problem.pool.columns()),
      row_(problem.pool.columns()),
      query_(problem.pool.columns()) {
  const auto block_rows = static_cast<int64_t>(block.kind.size());
  if (chunks_ > 1) sums_ = aligned_array<char>(group_panels * block_rows * lanes_ * 4);
}

int64_t PanelSearch::search(int64_t first_panel, int64_t last_panel) {
  evaluations_ = 0;
  for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
    for (int64_t panel = first_panel; panel < last_panel; ++panel) {
      run_panel(panel, panel - first_panel, chunk);
    }
  }
  return evaluations_;
}

void PanelSearch::run_panel(int64_t panel, int64_t slot, int64_t chunk) {
  constexpr int64_t bytes = PackedData::unit_bytes;
  const int64_t first_unit = block_.units * chunk / chunks_;
  Tile tile{};
  tile.panel = stage_.packed.panel(panel) + first_unit * lanes_ * bytes;
  tile.row_stride = block_.row_stride;
  tile.units = block_.units * (chunk + 1) / chunks_ - first_unit;
  tile.first = chunk == 0;
  tile.last = chunk + 1 == chunks_;
  tile.lane_scale = stage_.packed.lane_scales.get() + panel * lanes_;
  tile.threshold = thresholds_.get();
  tile.scores = scores_.get();
  if (tile.last) set_thresholds(panel);
  const int64_t tile_rows = problem_.kernels.tile_rows;
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

void PanelSearch::set_thresholds(int64_t panel) {
  for (int64_t lane = 0; lane < lanes_; ++lane) {
    const Query& q = query(panel, lane);
    float& limit = thresholds_[lane];
    if (q.kind == RowKind::excluded) {
      limit = -float_infinity;
    } else if (q.kind == RowKind::out_of_range) {
      limit = float_infinity;
    } else {
      limit = threshold(q, problem_.worst(panel * lanes_ + lane));
    }
  }
}

// Keeps the rows of a tile whose score matters.
void PanelSearch::collect(int64_t panel, int64_t first_row, uint64_t hit) {
  const int64_t rows = std::min(problem_.kernels.tile_rows, block_.count - first_row);
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

// The best score of a tile already bounds the nearest distance from above.
void PanelSearch::tighten(const Query& q, int64_t lane, int64_t rows) {
  const float admissible = admissible_score(q);
  float best = float_infinity;
  for (int64_t r = 0; r < rows; ++r) {
    const float score = scores_[r * lanes_ + lane];
    if (score < best && score > admissible) best = score;
  }
  if (!(best <= thresholds_[lane]) || best == float_infinity) return;
  const double squared = upper(q, best) / problem_.squared_scale;
  thresholds_[lane] = std::min(thresholds_[lane], threshold(q, squared));
}

void PanelSearch::evaluate(int64_t panel) {
  if (block_.any_out_of_range) add_out_of_range_rows(panel);
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

void PanelSearch::add_out_of_range_rows(int64_t panel) {
  for (int64_t r = 0; r < block_.count; ++r) {
    if (block_.kind[r] != RowKind::out_of_range) continue;
    for (int64_t lane = 0; lane < lanes_; ++lane) {
      if (query(panel, lane).kind == RowKind::excluded) continue;
      candidates_.push_back({static_cast<int32_t>(lane), static_cast<int32_t>(r), float_infinity});
    }
  }
}

void PanelSearch::evaluate_lane(int64_t panel, const Candidate* begin, const Candidate* end) {
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
    const double distance = problem_.kernels.distance(x, y, problem_.pool.columns());
    if (distance < problem_.reject_below || distance > problem_.worst(row)) continue;
    const std::lock_guard guard(problem_.locks[panel]);
    insert(problem_.result, row, distance, problem_.first_index + block_.first + candidate->row);
  }
}

// k rows with certified upper bounds: the k-th smallest bounds the k-th nearest distance.
double PanelSearch::bound_from_scores(const Query& q, const Candidate* begin,
                                      const Candidate* end) const {
  if (q.kind != RowKind::usual || !stage_.bounds_from_above()) return infinity;
  const float admissible = admissible_score(q);
  const Candidate* first = begin;
  while (first != end && !(first->score > admissible)) ++first;
  if (end - first < problem_.result.k) return infinity;
  const float score = first[problem_.result.k - 1].score;
  return std::isfinite(score) ? upper(q, score) / problem_.squared_scale : infinity;
}

}  // namespace naign::cpu
