// Blocks of the pool, packed for a filter.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "imle_knn/cpu/problem.h"

namespace naign::cpu {

class BlockLoader {
 public:
  BlockLoader(const Problem& problem, const Stage& stage, int64_t block_rows);

  // Packs pool rows first ... first + count - 1.
  void load(int64_t first, int64_t count);

  const Block& block() const { return block_; }

 private:
  void load_row(int64_t r);
  void project();
  bool repeats(const float* values, int64_t row);

  const Problem& problem_;
  const Stage& stage_;
  Block block_;
  std::optional<Projector> projector_;
  std::vector<int64_t> to_project_;
  std::vector<float> row_;
  std::vector<float> previous_;
};

}  // namespace naign::cpu
