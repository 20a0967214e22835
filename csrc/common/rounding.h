// Floating-point error bounds used by the filters; docs/exactness.md states and proves them.
// u denotes the unit roundoff of float32, 2^-24, and gamma(n) = n u / (1 - n u).
#pragma once

#include <cmath>
#include <limits>

#include "common/host_device.h"

namespace naign {

constexpr double unit_roundoff = 0x1p-24;

// Relative error of n successive float32 roundings (Higham, Accuracy and Stability, lemma 3.1).
// Sums too long for the lemma get a bound so large that everything is compared exactly.
NAIGN_HOST_DEVICE constexpr double gamma(double n) {
  const double error = n * unit_roundoff;
  return error < 0.5 ? error / (1 - error) : 0x1p60;
}

// Absolute error that underflow can add to one float32 result.
constexpr double underflow_unit = 0x1p-149;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float float_infinity = std::numeric_limits<float>::infinity();
constexpr float largest_float = 0x1.fffffep127f;

// The smallest float32 that is not below value.
NAIGN_HOST_DEVICE inline float round_up(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value ? nextafterf(nearest, float_infinity) : nearest;
}

}  // namespace naign
