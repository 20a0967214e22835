// What a filter knows of every pair, laid open for the tests that attack its bounds.
#pragma once

#include "common/matrix.h"
#include "imle_knn/cpu/packed_data.h"

namespace naign::cpu {

// Bounds of the squared distance of every pair, row-major (rows, pool rows); [0, inf] for rows that
// the filter leaves alone.
void filter_bounds(const PackedData& packed, const Matrix& pool, double* lower, double* upper);

}  // namespace naign::cpu
