// A packed block of the pool against panels of the data.
#pragma once

#include <cstdint>
#include <vector>

#include "imle_knn/cpu/problem.h"

namespace naign::cpu {

class PanelSearch {
 public:
  // At most group_panels panels at a time.
  PanelSearch(Problem& problem, const Stage& stage, const Block& block, int64_t group_panels);

  // Takes the block into the result of the panels' rows. Returns the number of distances computed
  // exactly.
  int64_t search(int64_t first_panel, int64_t last_panel);

 private:
  struct Candidate {
    int32_t lane;
    int32_t row;  // of the block
    float score;
  };

  void run_panel(int64_t panel, int64_t slot, int64_t chunk);
  void set_thresholds(int64_t panel);
  void collect(int64_t panel, int64_t first_row, uint64_t hit);
  void tighten(const Query& q, int64_t lane, int64_t rows);
  void evaluate(int64_t panel);
  void add_out_of_range_rows(int64_t panel);
  void evaluate_lane(int64_t panel, const Candidate* begin, const Candidate* end);
  double bound_from_scores(const Query& q, const Candidate* begin, const Candidate* end) const;

  const Query& query(int64_t panel, int64_t lane) const {
    return stage_.packed.queries[panel * lanes_ + lane];
  }
  float threshold(const Query& query, double squared) const {
    return round_up(stage_.bounds.score_beyond(query, squared * problem_.squared_scale,
                                               block_.largest_quantisation_error,
                                               block_.largest_norm_bound));
  }
  bool may_tighten(const Query& q) const {
    return problem_.result.k == 1 && q.kind == RowKind::usual && stage_.bounds_from_above();
  }
  double upper(const Query& q, float score) const {
    return stage_.bounds.upper(q, score, block_.largest_quantisation_error,
                               block_.largest_norm_bound);
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
    return stage_.bounds.score_within(q, problem_.reject_below * problem_.squared_scale,
                                      block_.largest_quantisation_error, block_.largest_norm_bound);
  }
  bool certainly_farther(const Query& q, const Candidate& candidate, double bound) const {
    if (q.kind != RowKind::usual || block_.kind[candidate.row] != RowKind::usual) return false;
    const double lower =
        stage_.bounds.lower(q, candidate.score, block_.quantisation_error[candidate.row],
                            block_.norm_bound[candidate.row]);
    return lower > bound * problem_.squared_scale * (1 + 2 * stage_.bounds.slack);
  }

  Problem& problem_;
  const Stage& stage_;
  const Block& block_;
  int64_t lanes_;
  int64_t chunks_;
  AlignedArray<char> sums_;  // between the chunks of long rows
  AlignedArray<float> scores_;
  AlignedArray<float> thresholds_;
  Screen screen_;
  std::vector<float> row_;
  std::vector<float> query_;
  std::vector<Candidate> candidates_;
  int64_t evaluations_ = 0;
};

}  // namespace naign::cpu
