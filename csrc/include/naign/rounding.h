// Floating-point error bounds used by the filters; docs/exactness.md states and proves them.
// u denotes the unit roundoff of float32, 2^-24, and gamma(n) = n u / (1 - n u).
#pragma once

namespace naign {

constexpr double unit_roundoff = 0x1p-24;

// Relative error of n successive float32 roundings (Higham, Accuracy and Stability, lemma 3.1).
constexpr double gamma(double n) { return n * unit_roundoff / (1 - n * unit_roundoff); }

// Absolute error that underflow can add to one float32 result.
constexpr double underflow_unit = 0x1p-149;

// Covers the roundings of the bound's own evaluation in float64 and those of the exact distance:
// (D / 32 + 7 + 16) 2^-53 < 2^-40 for D < 2^17.
constexpr double double_slack = 0x1p-38;

}  // namespace naign
