// The search's inner loops for AVX-512: tiles of 14 pool rows by 32 queries, 28 accumulators.
#if defined(__x86_64__)
#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "imle_knn_kernels.h"
#include "naign/rounding.h"
#include "round_up.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace naign::cpu {
namespace {

#include "imle_knn_common.h"

constexpr int64_t tile_rows = 14;
constexpr int64_t lanes = 32;

__m512 least(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
bool any_at_most(__m512 scores, const float* threshold) {
  return _mm512_cmp_ps_mask(scores, _mm512_load_ps(threshold), _CMP_LE_OQ) != 0;
}
void store_scores(float* out, __m512 scores) { _mm512_store_ps(out, scores); }

struct Float32 {
  using Sum = __m512;
  using Scores = __m512;
  static Sum start(const Tile&, int64_t) { return _mm512_setzero_ps(); }
  static Sum load(const void* p) { return _mm512_load_ps(p); }
  static void store(void* p, Sum sum) { _mm512_store_ps(p, sum); }
  static Sum broadcast(const void* p) { return _mm512_set1_ps(*static_cast<const float*>(p)); }
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm512_fmadd_ps(queries, row, sum);
  }
  static Scores score(const Tile& tile, int64_t row, int64_t, Sum sum) {
    return _mm512_fnmadd_ps(sum, _mm512_set1_ps(2.0f), _mm512_set1_ps(tile.row_norm[row]));
  }
};

#include "imle_knn_tile.h"

bool tile_float32(const Tile& tile) {
  return tile_of<Float32>(tile, std::make_index_sequence<tile_rows>());
}

}  // namespace

const Kernels& kernels_avx512() {
  static const Kernels table{
      .tile_rows = tile_rows,
      .lanes = lanes,
      .float32 = {.elements_per_unit = 1, .tile = tile_float32, .pack = pack_float32},
      .int8 = {},
      .distance = distance,
      .widen = widen,
      .all_finite = all_finite,
      .largest_magnitude = largest_magnitude,
  };
  return table;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
