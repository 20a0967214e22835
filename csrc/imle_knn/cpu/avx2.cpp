// The search's inner loops for AVX2: tiles of 6 pool rows by 16 queries, 12 accumulators.
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
#pragma GCC target("avx2,fma")

namespace naign::cpu {
namespace {

// Eight numbers, and how many pairs of rows are summed at once.
struct Lanes {
  using Vector = __m256;
  static constexpr int64_t width = 8;
  static constexpr int64_t pairs = 8;
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector load(const float* p, int64_t count) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_maskload_ps(
        p, _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int32_t>(count)), lane));
  }
  static Vector load_eight(const float* p, int64_t count) { return load(p, count); }
  static Vector add_square(Vector sum, Vector value) { return _mm256_fmadd_ps(value, value, sum); }
  // One bit for each of sixteen lanes that are all ones, not zeros.
  template <class Ints>
  static uint32_t bits(Ints lanes) {
    __m256 half[2];
    std::memcpy(half, &lanes, sizeof(half));
    const auto low = static_cast<uint32_t>(_mm256_movemask_ps(half[0]));
    return low | static_cast<uint32_t>(_mm256_movemask_ps(half[1])) << 8;
  }
};

#include "imle_knn/cpu/common.inc"

constexpr int64_t tile_rows = 6;
constexpr int64_t lanes = 16;

__m256 least(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
uint64_t lanes_at_most(__m256 scores, const float* threshold) {
  return _mm256_movemask_ps(_mm256_cmp_ps(scores, _mm256_load_ps(threshold), _CMP_LE_OQ));
}
void store_scores(float* out, __m256 scores) { _mm256_store_ps(out, scores); }

struct Float32 {
  using Sum = __m256;
  using Scores = __m256;
  static Sum start(const Tile&, int64_t) { return _mm256_setzero_ps(); }
  static Sum load(const void* p) { return _mm256_load_ps(static_cast<const float*>(p)); }
  static void store(void* p, Sum sum) { _mm256_store_ps(static_cast<float*>(p), sum); }
  static Sum broadcast(const void* p) { return _mm256_set1_ps(*static_cast<const float*>(p)); }
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm256_fmadd_ps(queries, row, sum);
  }
  static Scores score(const Tile& tile, int64_t row, int64_t, Sum sum) {
    return _mm256_fnmadd_ps(sum, _mm256_set1_ps(2.0f), _mm256_set1_ps(tile.row_norm[row]));
  }
};

// Sums of products of integers, and the score that such a sum stands for.
struct Integers {
  using Sum = __m256i;
  using Scores = __m256;
  static Sum start(const Tile& tile, int64_t row) { return _mm256_set1_epi32(tile.row_start[row]); }
  static Sum load(const void* p) { return _mm256_load_si256(static_cast<const __m256i*>(p)); }
  static void store(void* p, Sum sum) { _mm256_store_si256(static_cast<__m256i*>(p), sum); }
  static Sum broadcast(const void* p) { return _mm256_set1_epi32(*static_cast<const int32_t*>(p)); }
  static Scores score(const Tile& tile, int64_t row, int64_t lane, Sum sum) {
    const __m256 scale =
        _mm256_mul_ps(_mm256_load_ps(tile.lane_scale + lane), _mm256_set1_ps(tile.row_scale[row]));
    return _mm256_fnmadd_ps(_mm256_cvtepi32_ps(sum), scale, _mm256_set1_ps(tile.row_norm[row]));
  }
};

// Pairs of products are summed in 16 bits: 7-bit queries keep them below 2 * 127 * 127 < 2^15.
struct Int8 : Integers {
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    const __m256i pairs = _mm256_maddubs_epi16(queries, row);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};

struct Int16 : Integers {
  static Sum add_product(Sum sum, Sum queries, Sum row) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(queries, row));
  }
};

#include "imle_knn/cpu/tile.inc"

uint64_t tile_float32(const Tile& tile) {
  return tile_of<Float32>(tile, std::make_index_sequence<tile_rows>());
}

uint64_t tile_int16(const Tile& tile) {
  return tile_of<Int16>(tile, std::make_index_sequence<tile_rows>());
}

uint64_t tile_int8(const Tile& tile) {
  return tile_of<Int8>(tile, std::make_index_sequence<tile_rows>());
}

}  // namespace

template <>
const Kernels& kernels<Isa::avx2>() {
  static const Kernels table = table_of(tile_rows, lanes, int8_filter<64>(tile_int8),
                                        int16_filter(tile_int16), float32_filter(tile_float32));
  return table;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
