#pragma once

#include <cmath>
#include <limits>

namespace naign::cpu {

// The smallest float32 that is not below value.
inline float round_up(double value) {
  const float nearest = static_cast<float>(value);
  return nearest < value ? std::nextafterf(nearest, std::numeric_limits<float>::infinity())
                         : nearest;
}

}  // namespace naign::cpu
