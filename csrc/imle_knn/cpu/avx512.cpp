// The search's inner loops for AVX-512: tiles of 14 pool rows by 32 queries, 28 accumulators.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace naign::cpu {
namespace {

#include "imle_knn/cpu/avx512_vectors.inc"
// Sixteen numbers, and how many pairs of rows are summed at once.
struct Lanes {
  using Vector = __m512;
  static constexpr int64_t width = 16;
  static constexpr int64_t pairs = 16;
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector load(const float* p, int64_t count) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1 << count) - 1), p);
  }
  static __m256 load_eight(const float* p, int64_t count) {
    return _mm256_maskz_loadu_ps(static_cast<__mmask8>((1 << count) - 1), p);
  }
  static Vector add_square(Vector sum, Vector value) { return _mm512_fmadd_ps(value, value, sum); }
  // One bit for each of sixteen lanes that are all ones, not zeros.
  template <class Ints>
  static uint32_t bits(Ints lanes) {
    return _mm512_movepi32_mask((__m512i)lanes);
  }
};

#include "imle_knn/cpu/common.inc"

constexpr int64_t lanes = 32;

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

struct Int16 : Integers {
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(queries, row));
  }
};

#include "imle_knn/cpu/tile.inc"

uint64_t tile_float32(const Tile& tile) {
  return tile_of<Float32>(tile, std::make_index_sequence<tile_rows>());
}

uint64_t tile_int16(const Tile& tile) {
  return tile_of<Int16>(tile, std::make_index_sequence<tile_rows>());
}

}  // namespace

template <>
const Kernels& kernels<Isa::avx512>() {
  static const bool vnni = features().avx512_vnni;
  static const Kernels table =
      table_of(tile_rows, lanes, int8_filter<128>(vnni ? tile_int8_vnni : nullptr),
               int16_filter(vnni ? tile_int16_vnni : tile_int16), float32_filter(tile_float32));
  return table;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
