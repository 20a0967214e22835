// The search's inner loops for AVX-512 VNNI: four 8-bit or two 16-bit products a lane and
// instruction.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "imle_knn_kernels.h"
#include "naign/rounding.h"
#include "round_up.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t tile_rows = 14;

__m512 least(__m512 a, __m512 b) { return _mm512_min_ps(a, b); }
uint64_t lanes_at_most(__m512 scores, const float* threshold) {
  return _mm512_cmp_ps_mask(scores, _mm512_load_ps(threshold), _CMP_LE_OQ);
}
void store_scores(float* out, __m512 scores) { _mm512_store_ps(out, scores); }

// Sums of products of integers, and the score that such a sum stands for.
struct Integers {
  using Sum = __m512i;
  using Scores = __m512;
  static Sum start(const Tile& tile, int64_t row) { return _mm512_set1_epi32(tile.row_start[row]); }
  static Sum load(const void* p) { return _mm512_load_si512(p); }
  static void store(void* p, Sum sum) { _mm512_store_si512(p, sum); }
  static Sum broadcast(const void* p) { return _mm512_set1_epi32(*static_cast<const int32_t*>(p)); }
  static Scores score(const Tile& tile, int64_t row, int64_t lane, Sum sum) {
    const __m512 scale =
        _mm512_mul_ps(_mm512_load_ps(tile.lane_scale + lane), _mm512_set1_ps(tile.row_scale[row]));
    return _mm512_fnmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_set1_ps(tile.row_norm[row]));
  }
};

struct Int8 : Integers {
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm512_dpbusd_epi32(sum, queries, row);
  }
};

struct Int16 : Integers {
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm512_dpwssd_epi32(sum, queries, row);
  }
};

#include "imle_knn_tile.h"

}  // namespace

uint64_t tile_int8_vnni(const Tile& tile) {
  return tile_of<Int8>(tile, std::make_index_sequence<tile_rows>());
}

uint64_t tile_int16_vnni(const Tile& tile) {
  return tile_of<Int16>(tile, std::make_index_sequence<tile_rows>());
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
