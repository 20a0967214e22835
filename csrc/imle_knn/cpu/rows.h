// Rows of any dtype and stride as contiguous float32.
#pragma once

#include "common/matrix.h"
#include "imle_knn/cpu/kernels.h"

namespace naign::cpu {

class Rows {
 public:
  Rows(const Matrix& matrix, const Kernels& kernels) : matrix_(matrix), kernels_(kernels) {}

  int64_t count() const { return matrix_.rows; }
  int64_t columns() const { return matrix_.columns; }
  int64_t row_stride() const { return matrix_.row_stride; }

  // True where get() needs no scratch.
  bool in_place() const { return matrix_.dtype == Dtype::float32 && matrix_.column_stride == 1; }

  // The row itself where it is contiguous float32, else its copy in scratch (columns floats).
  const float* get(int64_t row, float* scratch) const {
    const void* values = matrix_.row(row);
    if (in_place()) return static_cast<const float*>(values);
    kernels_.widen(values, matrix_.dtype, matrix_.column_stride, matrix_.columns, scratch);
    return scratch;
  }

 private:
  Matrix matrix_;
  const Kernels& kernels_;
};

}  // namespace naign::cpu
