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

constexpr int64_t distance_lanes = 32;

double distance(const float* x, const float* y, int64_t columns) {
  alignas(64) double sums[distance_lanes] = {};
  const int64_t whole = columns / distance_lanes * distance_lanes;
  for (int64_t k = 0; k < whole; k += distance_lanes) {
#pragma GCC unroll 32
    for (int64_t l = 0; l < distance_lanes; ++l) {
      const double difference = static_cast<double>(x[k + l]) - static_cast<double>(y[k + l]);
      sums[l] += difference * difference;
    }
  }
  for (int64_t k = whole; k < columns; ++k) {
    const double difference = static_cast<double>(x[k]) - static_cast<double>(y[k]);
    sums[k - whole] += difference * difference;
  }
  for (int64_t width = distance_lanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) sums[l] += sums[l + width];
  }
  return sums[0];
}

constexpr int64_t norm_lanes = 64;

inline __attribute__((always_inline)) float reduce(float (&lanes)[norm_lanes]) {
  for (int64_t width = norm_lanes / 2; width > 0; width /= 2) {
    for (int64_t l = 0; l < width; ++l) lanes[l] += lanes[l + width];
  }
  return lanes[0];
}

// Roundings in a sum of squares over norm_lanes strided partial sums: lemma 2 of docs/exactness.md.
inline double sum_roundings(int64_t columns) {
  return static_cast<double>(columns / norm_lanes) + 10;
}

// Centred values as they are. error: the subtraction rounds each value once, |fl(v) - v| <= u
// |fl(v)| or, below the normal range, the scaling rounds it to a multiple of 2^-149 (lemma 3).
PackedRow pack_float32(const float* values, const float* centre, float scale, int64_t columns,
                       int64_t units, bool, void* packed) {
  auto* out = static_cast<float*>(packed);
  alignas(64) float squares[norm_lanes] = {};
  const int64_t whole = columns / norm_lanes * norm_lanes;
  for (int64_t k = 0; k < whole; k += norm_lanes) {
#pragma GCC unroll 64
    for (int64_t l = 0; l < norm_lanes; ++l) {
      const float value = values[k + l] * scale - centre[k + l];
      out[k + l] = value;
      squares[l] += value * value;
    }
  }
  for (int64_t k = whole; k < columns; ++k) {
    const float value = values[k] * scale - centre[k];
    out[k] = value;
    squares[k - whole] += value * value;
  }
  for (int64_t k = columns; k < units; ++k) out[k] = 0;
  PackedRow row{};
  row.norm = reduce(squares);
  const double reach = std::sqrt(row.norm * (1 + gamma(sum_roundings(columns))));
  const double underflow = underflow_unit * std::sqrt(static_cast<double>(columns)) * 4;
  row.reach = round_up(reach + underflow);
  row.error = round_up(unit_roundoff * reach * 1.0001 + underflow);
  row.scale = 1;
  return row;
}
