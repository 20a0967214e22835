// The loops of the fused loss in the compiler's own vectors. Each instruction set's source file
// includes this inside its own target region and namespace, after saying how many floats make a
// vector (`width`). Sums are kept apart by an element's index modulo 16, every lane is computed
// alone and no operation is fused: all instruction sets give the same bits.
//
// Included several times on purpose: no include guard.

using Floats = float __attribute__((vector_size(width * 4)));
using Words = uint32_t __attribute__((vector_size(width * 4)));
using LongWords = uint64_t __attribute__((vector_size(width * 8)));
using Doubles = double __attribute__((vector_size(width * 8)));

constexpr int64_t lanes = 16;
constexpr int64_t pairs = lanes / (2 * width);

template <class Vector>
inline __attribute__((always_inline)) Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Vector>
inline __attribute__((always_inline)) void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

inline __attribute__((always_inline)) Floats widen_half(Words half) {
  const Words magnitude = (half & 0x7fffu) << 13;
  // Moving the exponent by a multiplication with 2^112 makes subnormals right as well.
  const Words finite = (Words)((Floats)magnitude * 0x1p112f);
  const Words special = magnitude | 0x7f800000u;
  return (Floats)((magnitude >= 0x0f800000u ? special : finite) | (half & 0x8000u) << 16);
}

// To nearest even. Subnormal results are rounded by adding in float32, where the last kept bit is
// the last there is.
inline __attribute__((always_inline)) Words narrow_half(Floats value) {
  const Words bits = (Words)value;
  const Words magnitude = bits & 0x7fffffffu;
  const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3f000000u;
  const Words normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const Words finite = magnitude < 0x38800000u ? subnormal : normal;
  const Words special = magnitude > 0x7f800000u ? Words{} + 0x7e00u : Words{} + 0x7c00u;
  return (bits >> 16 & 0x8000u) | (magnitude >= 0x47800000u ? special : finite);
}

// To nearest even, in the upper half of each word; the lower half is left as it comes.
inline __attribute__((always_inline)) Words narrow_bfloat(Floats value) {
  const Words bits = (Words)value;
  const Words rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  return (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded;
}

// 2 * width neighbouring elements: the first and the last width where all tensors are float32;
// otherwise those of even and of odd index, since halves come apart so without a shuffle.
struct Pair {
  Floats of[2];
};

template <bool mixed>
inline __attribute__((always_inline)) Pair read(const LossTensor& tensor, int64_t at) {
  if (!mixed) {
    const auto* from = static_cast<const float*>(tensor.values) + at;
    return {{load<Floats>(from), load<Floats>(from + width)}};
  }
  const char* from = static_cast<const char*>(tensor.values) + at * bytes_of(tensor.dtype);
  if (tensor.dtype == Dtype::float32) {
    const auto both = load<LongWords[2]>(from);
  }
}
