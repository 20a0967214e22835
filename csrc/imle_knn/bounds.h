// The mathematics of the filters, the same on every device; docs/exactness.md proves it.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/host_device.h"
#include "common/rounding.h"

namespace naign {

enum class RowKind : int32_t {
  usual,
  out_of_range,  // so large that the filter's arithmetic might overflow: always compared exactly
  excluded,      // NaN or Inf (or no row at all): matches nothing
};

// Rows beyond this norm, after scaling, are out of range: squares and their sums stay far from
// overflow.
constexpr float largest_row_norm_bound = 0x1p50f;

// What the bounds need to know of a data row; see docs/exactness.md for the notation.
struct Query {
  double norm;                // |x~|^2
  double quantisation_error;  // e_x
  double norm_bound;          // n_x
  RowKind kind;
};

NAIGN_HOST_DEVICE constexpr double distance_slack(int64_t columns) {
  return (static_cast<double>(columns) / 32 + 64) * 0x1p-52;
}

// Squared distances that a filter can certify, in scaled units: section 5.
struct Bounds {
  double product_gamma;  // relative error of the product sum, against n_x n_y
  double norm_gamma;     // relative error of |y~|^2 and of the score's last rounding, against n_y^2
  double underflow;      // absolute error
  double slack;          // relative error of float64 arithmetic, here and in the exact distance

  // Integer sums are exact: only their conversion, their scale and the last subtraction round.
  // `distance_columns` is the length of the rows whose distances decide.
  NAIGN_HOST_DEVICE static Bounds of_integers(int64_t columns, int64_t distance_columns) {
    return of(columns, distance_columns, 5, 4);
  }
  NAIGN_HOST_DEVICE static Bounds of_float32(int64_t columns, int64_t distance_columns) {
    const auto length = static_cast<double>(columns);
    return of(columns, distance_columns, length + 2, length / 64 + 14);
  }

  // At least |score - (|y~|^2 - 2 <x~, y~>)|.
  NAIGN_HOST_DEVICE double score_error(const Query& query, double norm_bound) const {
    return 2 * product_gamma * query.norm_bound * norm_bound +
           norm_gamma * norm_bound * norm_bound + underflow +
           slack * (query.norm + norm_bound * norm_bound);
  }

  // The distance of x and y is at least sqrt(lower(...)) and at most sqrt(upper(...)).
  NAIGN_HOST_DEVICE double lower(const Query& query, double score, double quantisation_error,
                                 double norm_bound) const {
    const double squared = query.norm + score - score_error(query, norm_bound);
    const double distance = root(squared) - query.quantisation_error - quantisation_error;
    return distance > 0 ? distance * distance * (1 - slack) : 0;
  }
  NAIGN_HOST_DEVICE double upper(const Query& query, double score, double quantisation_error,
                                 double norm_bound) const {
    const double squared = query.norm + score + score_error(query, norm_bound);
    const double distance = root(squared) + query.quantisation_error + quantisation_error;
    return distance * distance * (1 + slack);
  }

  // The score above which lower(...) > squared for every row of at most this quantisation error and
  // norm bound.
  NAIGN_HOST_DEVICE double score_beyond(const Query& query, double squared,
                                        double quantisation_error, double norm_bound) const {
    const double distance =
        std::sqrt(squared * (1 + 2 * slack)) + query.quantisation_error + quantisation_error;
    return distance * distance * (1 + slack) - query.norm + score_error(query, norm_bound);
  }

  // The score below which upper(...) < squared for every row of at most this quantisation error and
  // norm bound.
  NAIGN_HOST_DEVICE double score_within(const Query& query, double squared,
                                        double quantisation_error, double norm_bound) const {
    const double distance =
        std::sqrt(squared * (1 - 2 * slack)) - query.quantisation_error - quantisation_error;
    if (!(distance > 0)) return -infinity;
    return distance * distance * (1 - slack) - query.norm - score_error(query, norm_bound);
  }

 private:
  NAIGN_HOST_DEVICE static Bounds of(int64_t columns, int64_t distance_columns, double products,
                                     double norms) {
    return {gamma(products), gamma(norms),
            0x1p-115 + 4 * underflow_unit * static_cast<double>(columns),
            distance_slack(distance_columns)};
  }
  NAIGN_HOST_DEVICE static double root(double squared) {
    return std::sqrt(squared > 0 ? squared : 0.0);
  }
};

// Float32 squares are summed in this many partial sums, unless said otherwise.
constexpr int64_t partial_sums = 64;

// What a float32 sum of squared differences tells of the distance: lemma 9.
struct ScreenBound {
  double error;
  double underflow;
  double slack;

  NAIGN_HOST_DEVICE static ScreenBound of(int64_t columns, int64_t lanes = partial_sums) {
    return {gamma(static_cast<double>(columns / lanes) + 13),
            underflow_unit * static_cast<double>(columns), 1 + 2 * distance_slack(columns)};
  }

  // Every finite sum above this belongs to a distance greater than `squared`.
  NAIGN_HOST_DEVICE double beyond(double squared) const {
    return (squared * slack + underflow) * (1 + error);
  }
  // True only if the distance is greater. A sum that overflowed, or NaN, says nothing.
  NAIGN_HOST_DEVICE bool farther(float sum, double squared) const {
    return usable(sum) && sum > beyond(squared);
  }

  // At least the squared distance.
  NAIGN_HOST_DEVICE double upper(float sum) const {
    return usable(sum) ? (sum + underflow) * (1 + error) : infinity;
  }
  // True only if the distance is less.
  NAIGN_HOST_DEVICE bool nearer(float sum, double squared) const {
    return upper(sum) * slack < squared;
  }

 private:
  NAIGN_HOST_DEVICE static bool usable(float sum) { return sum <= largest_float; }
};

// At least |v| for the float32 values whose squares were summed: lemma 2.
NAIGN_HOST_DEVICE inline double norm_bound_of(float sum_of_squares, int64_t columns) {
  const double roundings = static_cast<double>(columns / partial_sums) + 10;
  const double underflow = underflow_unit * static_cast<double>(columns) * 2;
  return std::sqrt((sum_of_squares + underflow) * (1 + gamma(roundings)));
}

// Scaling by a power of two is exact but for underflow, the subtraction rounds once: lemma 3.
NAIGN_HOST_DEVICE inline double centring_error(double norm_bound, int64_t columns) {
  return unit_roundoff * norm_bound * 1.0001 +
         underflow_unit * std::sqrt(static_cast<double>(columns)) * 4;
}

// The largest values an integer row may hold: each at most `value`, their root of squares at most
// `norm`, so that |<q, r>| stays below 2^31 by Cauchy and Schwarz.
struct Levels {
  float value;
  double norm;
};

constexpr Levels int8_levels{127, 1e9};
constexpr Levels int7_levels{63, 1e9};
constexpr Levels int16_levels{32000, 46000};
constexpr int64_t largest_integer_columns = 60000;

// Adding it rounds a float32 to the nearest integer, which then stands in the last bits.
constexpr float integer_shift = 0x1.8p23f;

// Rows below this are packed as zeros: the error is all of the row, and nothing underflows.
constexpr float least_packed = 0x1p-60f;

// What a row holds before it is packed: its largest magnitude, and at least its length.
struct Extent {
  float largest;
  double norm_bound;

  NAIGN_HOST_DEVICE bool fits() const { return norm_bound < 0x1p60; }
  NAIGN_HOST_DEVICE bool packs_as_zeros() const { return !(largest >= least_packed) || !fits(); }
};

// The scale of an integer row; 1 where the row is packed as zeros.
NAIGN_HOST_DEVICE inline float integer_scale(const Extent& extent, const Levels& levels) {
  if (extent.packs_as_zeros()) return 1;
  const double by_value = extent.largest / double{levels.value};
  const double by_norm = extent.norm_bound / levels.norm;
  return round_up(by_value < by_norm ? by_norm : by_value);
}

// e of an integer row, from the float32 sum of its squared rounding errors: lemmas 2, 3 and 4.
NAIGN_HOST_DEVICE inline float integer_quantisation_error(float squared_errors,
                                                          const Extent& extent, int64_t columns) {
  return round_up(norm_bound_of(squared_errors, columns) * (1 + 4 * unit_roundoff) +
                  4 * unit_roundoff * extent.norm_bound +
                  centring_error(extent.norm_bound, columns));
}

// n of an integer row, from the exact sum of its squared integers; +inf where it does not fit.
NAIGN_HOST_DEVICE inline float integer_norm_bound(double squared_integers, float scale,
                                                  const Extent& extent) {
  if (!extent.fits()) return float_infinity;
  return round_up(std::sqrt(squared_integers) * scale * (1 + 0x1p-50));
}

}  // namespace naign
