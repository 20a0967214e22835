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

#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma")

namespace naign::cpu {
namespace {

#include "imle_knn/cpu/avx512_vectors.inc"

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

#include "imle_knn/cpu/tile.inc"

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
