// Floating-point error bounds used by the filters; docs/exactness.md states and proves them.
// u denotes the unit roundoff of float32, 2^-24, and gamma(n) = n u / (1 - n u).
#pragma once

namespace naign {

constexpr double unit_roundoff = 0x1p-24;

// Relative error of n successive float32 roundings (Higham, Accuracy and Stability, lemma 3.1).
// Sums too long for the lemma get a bound so large that everything is compared exactly.
constexpr double gamma(double n) {
  const double error = n * unit_roundoff;
  return error < 0.5 ? error / (1 - error) : 0x1p60;
}

// Absolute error that underflow can add to one float32 result.
constexpr double underflow_unit = 0x1p-149;

}  // namespace naign
