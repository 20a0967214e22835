// The search's inner loops in plain C++: every processor, and the model for the others.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "imle_knn_kernels.h"
#include "naign/rounding.h"
#include "round_up.h"

namespace naign::cpu {
namespace {

#include "imle_knn_common.h"

constexpr int64_t tile_rows = 4;
constexpr int64_t lanes = 8;

uint64_t tile_float32(const Tile& tile) {
  const auto* panel = reinterpret_cast<const float*>(tile.panel);
  const auto* rows = reinterpret_cast<const float*>(tile.rows);
  auto* carried = reinterpret_cast<float*>(tile.sums);
  float sums[tile_rows][lanes] = {};
  if (!tile.first) std::memcpy(sums, carried, sizeof(sums));
  for (int64_t unit = 0; unit < tile.units; ++unit) {
#pragma GCC unroll 4
    for (int64_t r = 0; r < tile_rows; ++r) {
      const float value = rows[r * tile.row_stride + unit];
#pragma GCC unroll 8
      for (int64_t l = 0; l < lanes; ++l) sums[r][l] += panel[unit * lanes + l] * value;
    }
  }
  if (!tile.last) {
    std::memcpy(carried, sums, sizeof(sums));
    return 0;
  }
  uint64_t hit = 0;
  for (int64_t r = 0; r < tile_rows; ++r) {
    for (int64_t l = 0; l < lanes; ++l) {
      const float score = tile.row_norm[r] - 2 * sums[r][l];
      tile.scores[r * lanes + l] = score;
      hit |= uint64_t{score <= tile.threshold[l]} << l;
    }
  }
  return hit;
}

}  // namespace

const Kernels& kernels_portable() {
  static const Kernels table = table_of(tile_rows, lanes, {}, {}, float32_filter(tile_float32));
  return table;
}

}  // namespace naign::cpu
