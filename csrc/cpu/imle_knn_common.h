// Loops that the compiler vectorises well by itself. Each instruction set's source file includes
// this inside its own target region and namespace, so that every table gets its own code; all of
// them round alike, because no operation here is fused or reordered.
//
// Included several times on purpose: no include guard.

inline __attribute__((always_inline)) float widen_half(uint16_t half) {
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  // Moving the exponent by a multiplication with 2^112 makes subnormals right as well.
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t finite = std::bit_cast<uint32_t>(scaled);
  const uint32_t special = magnitude | 0x7f800000u;
  return std::bit_cast<float>((magnitude >= 0x0f800000u ? special : finite) | sign);
}

inline __attribute__((always_inline)) float widen_bfloat(uint16_t value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value) << 16);
}

void widen(const void* row, Dtype dtype, int64_t stride, int64_t columns, float* out) {
  const auto* halves = static_cast<const uint16_t*>(row);
  const auto* floats = static_cast<const float*>(row);
  if (stride == 1 && dtype == Dtype::float16) {
    for (int64_t k = 0; k < columns; ++k) out[k] = widen_half(halves[k]);
  } else if (stride == 1 && dtype == Dtype::bfloat16) {
    for (int64_t k = 0; k < columns; ++k) out[k] = widen_bfloat(halves[k]);
  } else if (dtype == Dtype::float16) {
    for (int64_t k = 0; k < columns; ++k) out[k] = widen_half(halves[k * stride]);
  } else if (dtype == Dtype::bfloat16) {
    for (int64_t k = 0; k < columns; ++k) out[k] = widen_bfloat(halves[k * stride]);
  } else {
    for (int64_t k = 0; k < columns; ++k) out[k] = floats[k * stride];
  }
}

bool all_finite(const float* values, int64_t columns) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < columns; ++k) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(values[k]) & 0x7fffffffu;
    largest = largest > magnitude ? largest : magnitude;
  }
  return largest < 0x7f800000u;
}

// As integers, non-negative floats keep their order, so this vectorises without fast-math.
float largest_magnitude(const float* values, const float* centre, int64_t columns) {
  uint32_t largest = 0;
  for (int64_t k = 0; k < columns; ++k) {
    const float value = values[k] - centre[k];
    const uint32_t magnitude = std::bit_cast<uint32_t>(value) & 0x7fffffffu;
    largest = largest > magnitude ? largest : magnitude;
  }
  return std::bit_cast<float>(largest);
}

// Vectors of 64 bytes in the compiler's own notation; it splits them where registers are shorter.
using Floats = float __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Doubles = double __attribute__((vector_size(64)));
using EightFloats = float __attribute__((vector_size(32)));

template <class Vector, class Number>
inline __attribute__((always_inline)) Vector load(const Number* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

// The sum of all lanes: the upper half is added to the lower one until one lane is left.
inline __attribute__((always_inline)) double sum_of(Doubles v) {
  const auto four =
      __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
  const auto two =
      __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
}

template <class Vector>
inline __attribute__((always_inline)) auto sum_of(Vector v) {
  const auto eight = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
  const auto four = __builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
                    __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  const auto two =
      __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
}

constexpr int64_t distance_lanes = 32;

inline __attribute__((always_inline)) Doubles squared_difference(const float* x, const float* y) {
  const Doubles difference = __builtin_convertvector(load<EightFloats>(x), Doubles) -
                             __builtin_convertvector(load<EightFloats>(y), Doubles);
  return difference * difference;
}

// Fewer than eight columns: the others are zeros.
inline __attribute__((always_inline)) Doubles squared_difference(const float* x, const float* y,
                                                                 int64_t columns) {
  const Doubles difference =
      __builtin_convertvector((EightFloats)Lanes::load_eight(x, columns), Doubles) -
      __builtin_convertvector((EightFloats)Lanes::load_eight(y, columns), Doubles);
  return difference * difference;
}

double distance(const float* x, const float* y, int64_t columns) {
  if (columns < 8) return sum_of(squared_difference(x, y, columns));
  Doubles a{}, b{}, c{}, d{};
  int64_t k = 0;
  for (; k + distance_lanes <= columns; k += distance_lanes) {
    a += squared_difference(x + k, y + k);
    b += squared_difference(x + k + 8, y + k + 8);
    c += squared_difference(x + k + 16, y + k + 16);
    d += squared_difference(x + k + 24, y + k + 24);
  }
  Doubles* const sums[]{&a, &b, &c, &d};
  for (int64_t v = 0; k < columns; ++v, k += 8) {
    *sums[v] += k + 8 <= columns ? squared_difference(x + k, y + k)
                                 : squared_difference(x + k, y + k, columns - k);
  }
  return sum_of((a + c) + (b + d));
}

// Rows are packed in strips of four vectors.
constexpr int64_t strip = partial_sums;

// Calls body(values, centre, k) for every strip; the last one is padded with zeros.
template <class Body>
inline __attribute__((always_inline)) void for_each_strip(const float* values, const float* centre,
                                                          int64_t columns, const Body& body) {
  const int64_t whole = columns / strip * strip;
  for (int64_t k = 0; k < whole; k += strip) body(values + k, centre + k, k);
  if (whole < columns) {
    float u[strip] = {};
    float v[strip] = {};
    std::memcpy(u, values + whole, (columns - whole) * sizeof(float));
    std::memcpy(v, centre + whole, (columns - whole) * sizeof(float));
    body(u, v, whole);
  }
}

// Four vectors of partial sums.
template <class Vector>
struct Sums {
  Vector a{}, b{}, c{}, d{};
  auto total() const { return sum_of((a + b) + (c + d)); }
};

inline __attribute__((always_inline)) Floats squared_gap(const float* x, const float* y) {
  const Floats difference = load<Floats>(x) - load<Floats>(y);
  return difference * difference;
}

// At least sixteen columns: a last vector overlaps the one before it, and only its new lanes count.
float approximate_distance(const float* x, const float* y, int64_t columns) {
  Sums<Floats> sums;
  int64_t k = 0;
  for (; k + strip <= columns; k += strip) {
    sums.a += squared_gap(x + k, y + k);
    sums.b += squared_gap(x + k + 16, y + k + 16);
    sums.c += squared_gap(x + k + 32, y + k + 32);
    sums.d += squared_gap(x + k + 48, y + k + 48);
  }
  Floats* const rest[]{&sums.a, &sums.b, &sums.c};
  for (int64_t v = 0; k + 16 <= columns; ++v, k += 16) *rest[v] += squared_gap(x + k, y + k);
  if (k < columns) {
    constexpr Ints lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const Ints fresh = lane >= static_cast<int32_t>(k + 16 - columns);
    const int64_t last = columns - 16;
    sums.d += (Floats)((Ints)squared_gap(x + last, y + last) & fresh);
  }
  return sums.total();
}

inline __attribute__((always_inline)) Floats centred(const float* values, const float* centre,
                                                     float scale) {
  return load<Floats>(values) * scale - load<Floats>(centre);
}

// Copies what of a strip lies before `end` bytes of the packed row.
inline __attribute__((always_inline)) void store_strip(char* row, int64_t at, const void* from,
                                                       int64_t bytes, int64_t end) {
  if (at + bytes <= end) {
    std::memcpy(row + at, from, bytes);
  } else if (at < end) {
    std::memcpy(row + at, from, end - at);
  }
}

PackedRow pack_float32(const float* values, const float* centre, float scale, int64_t columns,
                       int64_t units, char* packed) {
  Sums<Floats> squares;
  for_each_strip(values, centre, columns,
                 [&](const float* v, const float* c, int64_t k) __attribute__((always_inline)) {
                   const Floats four[4]{centred(v, c, scale), centred(v + 16, c + 16, scale),
                                        centred(v + 32, c + 32, scale),
                                        centred(v + 48, c + 48, scale)};
                   squares.a += four[0] * four[0];
                   squares.b += four[1] * four[1];
                   squares.c += four[2] * four[2];
                   squares.d += four[3] * four[3];
                   store_strip(packed, k * 4, four, sizeof(four), units * 4);
                 });
  PackedRow row{};
  row.norm = squares.total();
  const double reach = reach_of(static_cast<float>(row.norm), columns);
  row.reach = round_up(reach);
  row.error = round_up(centring_error(reach, columns));
  row.scale = 1;
  return row;
}

// Queries want |x~|^2 to float64 accuracy: it is subtracted from distances of any size.
PackedRow pack_float32_query(const float* values, const float* centre, float scale, int64_t columns,
                             int64_t units, char* packed) {
  PackedRow row = pack_float32(values, centre, scale, columns, units, packed);
  const auto* floats = reinterpret_cast<const float*>(packed);
  row.norm = 0;
  for (int64_t k = 0; k < columns; ++k) row.norm += double{floats[k]} * double{floats[k]};
  return row;
}

// The integers of a packed row, and a vector of sixteen of them.
struct Bytes {
  using Value = int8_t;
  using Vector = int8_t __attribute__((vector_size(16)));
};
struct UnsignedBytes {
  using Value = uint8_t;
  using Vector = uint8_t __attribute__((vector_size(16)));
};
struct Shorts {
  using Value = int16_t;
  using Vector = int16_t __attribute__((vector_size(32)));
};

inline __attribute__((always_inline)) Extent extent_of(const float* values, const float* centre,
                                                       float scale, int64_t columns) {
  Sums<Floats> squares;
  Ints largest{};
  const auto take = [&](Floats value, Floats& sum) __attribute__((always_inline)) {
    sum += value * value;
    const Ints magnitude = (Ints)value & 0x7fffffff;
    largest = magnitude > largest ? magnitude : largest;
  };
  for_each_strip(values, centre, columns,
                 [&](const float* v, const float* c, int64_t) __attribute__((always_inline)) {
                   take(centred(v, c, scale), squares.a);
                   take(centred(v + 16, c + 16, scale), squares.b);
                   take(centred(v + 32, c + 32, scale), squares.c);
                   take(centred(v + 48, c + 48, scale), squares.d);
                 });
  int32_t most = 0;
  for (int64_t l = 0; l < 16; ++l) most = std::max(most, largest[l]);
  return {std::bit_cast<float>(most), reach_of(squares.total(), columns)};
}

// v~ = s q with integers q = round(v / s). The error is measured, not estimated: lemma 4.
template <class Integer, int bias, bool query>
inline __attribute__((always_inline)) PackedRow pack_integers(const float* values,
                                                              const float* centre, float scale,
                                                              int64_t columns, int64_t units,
                                                              Levels levels, char* packed) {
  constexpr float shift = integer_shift;
  using Vector = typename Integer::Vector;
  const Extent extent = extent_of(values, centre, scale, columns);
  const float unit = integer_unit(extent, levels);
  const float inverse = extent.packs_as_zeros() ? 0 : 1 / unit;
  Sums<Floats> errors;
  Ints sum{};
  Ints square{};
  const auto quantise = [&](const float* v, const float* c, Floats& error_sum)
                            __attribute__((always_inline)) {
                              const Floats value = centred(v, c, scale);
                              const Floats shifted = value * inverse + shift;
                              const Floats error = value - (shifted - shift) * unit;
                              const Ints integer = (Ints)shifted - std::bit_cast<int32_t>(shift);
                              error_sum += error * error;
                              sum += integer;
                              square += integer * integer;
                              return __builtin_convertvector(integer + (query ? bias : 0), Vector);
                            };
  for_each_strip(values, centre, columns,
                 [&](const float* v, const float* c, int64_t k) __attribute__((always_inline)) {
                   const Vector four[4]{
                       quantise(v, c, errors.a), quantise(v + 16, c + 16, errors.b),
                       quantise(v + 32, c + 32, errors.c), quantise(v + 48, c + 48, errors.d)};
                   store_strip(packed, k * static_cast<int64_t>(sizeof(typename Integer::Value)),
                               four, sizeof(four), units * 4);
                 });
  const auto squared = static_cast<double>(sum_of(square));
  PackedRow row{};
  row.norm = squared * unit * unit;
  row.reach = integer_reach(squared, unit, extent);
  row.error = integer_error(errors.total(), extent, columns);
  row.scale = unit;
  row.start = query ? 0 : -bias * sum_of(sum);
  return row;
}

template <int bias>
PackedRow pack_int8_query(const float* values, const float* centre, float scale, int64_t columns,
                          int64_t units, char* packed) {
  constexpr Levels levels = bias == 128 ? int8_levels : int7_levels;
  return pack_integers<UnsignedBytes, bias, true>(values, centre, scale, columns, units, levels,
                                                  packed);
}

template <int bias>
PackedRow pack_int8_row(const float* values, const float* centre, float scale, int64_t columns,
                        int64_t units, char* packed) {
  return pack_integers<Bytes, bias, false>(values, centre, scale, columns, units, int8_levels,
                                           packed);
}

PackedRow pack_int16(const float* values, const float* centre, float scale, int64_t columns,
                     int64_t units, char* packed) {
  return pack_integers<Shorts, 0, true>(values, centre, scale, columns, units, int16_levels,
                                        packed);
}

constexpr int64_t any_columns = std::numeric_limits<int64_t>::max();
constexpr FilterKernel float32_filter(uint64_t (*tile)(const Tile&)) {
  return {1, any_columns, tile, pack_float32_query, pack_float32};
}
constexpr FilterKernel int16_filter(uint64_t (*tile)(const Tile&)) {
  return {2, largest_integer_columns, tile, pack_int16, pack_int16};
}
// The bias makes the queries unsigned, as the 8-bit products want them.
template <int bias>
constexpr FilterKernel int8_filter(uint64_t (*tile)(const Tile&)) {
  return {4, largest_integer_columns, tile, pack_int8_query<bias>, pack_int8_row<bias>};
}

#include "imle_knn_differences.h"
#include "imle_knn_lane_sums.h"
#include "imle_knn_lanes.h"

Kernels table_of(int64_t tile_rows, int64_t lanes, const FilterKernel& int8,
                 const FilterKernel& int16, const FilterKernel& float32) {
  return {.tile_rows = tile_rows,
          .lanes = lanes,
          .filters = {int8, int16, float32},
          .distance = distance,
          .approximate_distance = approximate_distance,
          .difference_rows = Lanes::pairs / 4,
          .difference_lanes = Lanes::width,
          .sum_differences = sum_differences,
          .nearest_by_lanes = nearest_by_lanes,
          .nearest_by_sums = nearest_by_sums,
          .least_above = least_above,
          .find_at_most = find_at_most,
          .widen = widen,
          .all_finite = all_finite,
          .largest_magnitude = largest_magnitude};
}
