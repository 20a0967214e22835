// The directions in which data vary most.
#pragma once

#include <cstdint>
#include <vector>

#include "common/matrix.h"
#include "common/parallel.h"

namespace naign::cpu {

constexpr int64_t axes_rank = 64;

// About orthonormal axes of length D, as the columns of a row-major (D, axes_rank) matrix; zeros
// where the data vary in fewer directions. Rows with NaN or Inf are left out. The same for every
// number of threads.
std::vector<float> principal_axes(const Matrix& data, const Parallel& parallel);

}  // namespace naign::cpu
