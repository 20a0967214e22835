// What the AVX-512 tiles share: the shape of a tile, vectors of scores, sums of integers.
// Included by a source file inside its target region (no include guard).

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
