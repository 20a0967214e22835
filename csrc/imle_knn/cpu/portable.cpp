// The search's inner loops in plain C++: every processor, and the model for the others.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"

namespace naign::cpu {
namespace {

// Sixteen bytes: what every 64-bit processor with vectors has at least.
using Four = float __attribute__((vector_size(16)));

// Four numbers, and how many pairs of rows are summed at once.
struct Lanes {
  using Vector = Four;
  static constexpr int64_t width = 4;
  static constexpr int64_t pairs = 8;
  static Vector load(const float* p) { return load(p, width); }
  static Vector load(const float* p, int64_t count) {
    Vector vector{};
    for (int64_t l = 0; l < count; ++l) vector[l] = p[l];
    return vector;
  }
  static auto load_eight(const float* p, int64_t count) {
    float __attribute__((vector_size(32))) vector{};
    for (int64_t l = 0; l < count; ++l) vector[l] = p[l];
    return vector;
  }
  static Vector add_square(Vector sum, Vector value) { return sum + value * value; }
  // One bit for each of sixteen lanes that are all ones, not zeros.
  template <class Ints>
  static uint32_t bits(Ints lanes) {
    uint32_t found = 0;
    for (uint32_t l = 0; l < 16; ++l) found |= (lanes[l] != 0 ? 1u : 0u) << l;
    return found;
  }
};

#include "imle_knn/cpu/common.inc"

constexpr int64_t tile_rows = 4;
constexpr int64_t lanes = 8;

Four least(Four a, Four b) { return b < a ? b : a; }
uint64_t lanes_at_most(Four scores, const float* threshold) {
  uint64_t hit = 0;
  for (int64_t l = 0; l < 4; ++l) hit |= uint64_t{scores[l] <= threshold[l]} << l;
  return hit;
}
void store_scores(float* out, Four scores) { std::memcpy(out, &scores, sizeof(scores)); }

struct Float32 {
  using Sum = Four;
  using Scores = Four;
  static Sum start(const Tile&, int64_t) { return Four{}; }
  static Sum load(const void* p) {
    Four vector;
    std::memcpy(&vector, p, sizeof(vector));
    return vector;
  }
  static void store(void* p, Sum sum) { std::memcpy(p, &sum, sizeof(sum)); }
  static Sum broadcast(const void* p) {
    const float value = *static_cast<const float*>(p);
    return Four{value, value, value, value};
  }
  static Sum add_product(Sum sum, Sum queries, Sum row) { return sum + queries * row; }
  static Scores score(const Tile& tile, int64_t row, int64_t, Sum sum) {
    return tile.row_norm[row] - 2.0f * sum;
  }
};

#include "imle_knn/cpu/tile.inc"

uint64_t tile_float32(const Tile& tile) {
  return tile_of<Float32>(tile, std::make_index_sequence<tile_rows>());
}

}  // namespace

template <>
const Kernels& kernels<Isa::portable>() {
  static const Kernels table = table_of(tile_rows, lanes, {}, {}, float32_filter(tile_float32));
  return table;
}

}  // namespace naign::cpu
