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
  const Query& query(int64_t panel, int64_t lane) const;
  float threshold(const Query& query, double squared) const;
  void set_thresholds(int64_t panel);
  void collect(int64_t panel, int64_t first_row, uint64_t hit);
  bool may_tighten(const Query& q) const;
  void tighten(const Query& q, int64_t lane, int64_t rows);
  double upper(const Query& q, float score) const;
  float admissible_score(const Query& q) const;
  double rejected_score(const Query& q) const;
  void evaluate(int64_t panel);
  void add_out_of_range_rows(int64_t panel);
  void evaluate_lane(int64_t panel, const Candidate* begin, const Candidate* end);
  double bound_from_scores(const Query& q, const Candidate* begin, const Candidate* end) const;
  bool certainly_farther(const Query& q, const Candidate& candidate, double bound) const;

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
