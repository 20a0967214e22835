// Philox4x32-10 and the Box-Muller transform, for one number or for a vector of them. A source file
// includes this inside its own namespace and target region, after it defined
//
//   Floats, Words, Ints     float32, uint32 and int32 lanes
//   LongWords               uint64 lanes; of these only the lower halves count
//   to_floats(Ints)         rounds to nearest even
//   as_words, as_ints, as_floats    the same bits
//   product(LongWords, uint32_t)    of the lower halves
//   square_root(Floats)     rounds to nearest even
//
// Included several times on purpose: no include guard.

// c[0] + x (c[1] + x (c[2] + ...)), from the innermost out.
template <class... Rest>
NAIGN_DEVICE inline __attribute__((always_inline)) Floats polynomial(Floats x, float first,
                                                                     Rest... rest) {
  if constexpr (sizeof...(rest) == 0) {
    return Floats{} + first;
  } else {
    return polynomial(x, rest...) * x + first;
  }
}

struct Philox {
  LongWords of[4];
};

// From counters to words. The rounds of several are side by side, since one's wait for each other.
template <int count>
NAIGN_DEVICE inline __attribute__((always_inline)) void philox(Philox (&states)[count],
                                                               uint32_t key_low,
                                                               uint32_t key_high) {
  for (int round = 0; round < 10; ++round) {
    for (Philox& state : states) {
      const LongWords even = product(state.of[0], 0xD2511F53u);
      const LongWords odd = product(state.of[2], 0xCD9E8D57u);
      state = {
          {(odd >> 32) ^ state.of[1] ^ key_low, odd, (even >> 32) ^ state.of[3] ^ key_high, even}};
    }
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
}

// -2 log u for u = min(floor(word / 2) + 1/2, 2^31 - 128) / 2^31, both terms and their sum rounded;
// u is between 2^-32 and 1 - 2^-24. With 2^31 u = 2^k m, sqrt(1/2) <= m < sqrt(2), and f = m - 1
// this is -2 log(2) (k - 31) + (f^2 q(f) - 2 f), q a polynomial; the relative error is below 3e-7.
NAIGN_DEVICE inline __attribute__((always_inline)) Floats minus_two_log(Words word) {
  const Floats above = to_floats(as_ints(word >> 1)) + 0.5f;
  const Floats largest = Floats{} + 0x1.fffffep30f;
  const Words bits = as_words(above < largest ? above : largest);
  const Ints exponent = as_ints(bits - 0x3f3504f3u) >> 23;
  const Floats f = as_floats(bits - (as_words(exponent) << 23)) - 1.0f;
  const Floats q = polynomial(f, 0x1.fffffap-1f, -0x1.5556f4p-1f, 0x1.00049ap-1f, -0x1.98d2c0p-2f,
                              0x1.535d2ep-2f, -0x1.318526p-2f, 0x1.2504a6p-2f, -0x1.65c780p-3f);
  return to_floats(exponent - 31) * -0x1.62e430p+0f + (f * f * q + f * -2.0f);
}

struct NormalPair {
  Floats of[2];
};

// sqrt(-2 log u) (cos a, sin a) with u of word `radius` and the angle a = (quadrant + t) pi / 2:
// quadrant is the two highest bits of word `angle`, t the other 30 as a signed number from -1/2 to
// 1/2. Polynomials in t^2 give the sine and the cosine of t pi / 2, relative error below 3e-7.
NAIGN_DEVICE inline __attribute__((always_inline)) NormalPair normal_pair(Words radius,
                                                                          Words angle) {
  const Floats length = square_root(minus_two_log(radius));
  const Floats t = to_floats(as_ints(angle << 2)) * 0x1p-32f;
  const Floats square = t * t;
  const Floats sine =
      polynomial(square, 0x1.921fb6p+0f, -0x1.4abbbap-1f, 0x1.465e92p-4f, -0x1.2d9308p-8f) * t;
  const Floats cosine = polynomial(square, 1.0f, -0x1.3bd39cp+0f, 0x1.03b09p-2f, -0x1.4e844ap-6f);
  const auto turned = as_ints(angle << 1) < 0;
  const Words sign = (angle ^ angle << 1) & 0x80000000u;
  const Floats x = as_floats(as_words(turned ? sine : cosine) ^ sign);
  const Floats y = as_floats(as_words(turned ? cosine : sine) ^ (angle & 0x80000000u));
  return {{length * x, length * y}};
}
