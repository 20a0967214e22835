// What a kernel sees of a tensor: a pointer, sizes and strides.
#pragma once

#include <cstdint>

#include "common/host_device.h"

namespace naign {

enum class Dtype : int32_t { float32, float16, bfloat16 };

NAIGN_HOST_DEVICE constexpr int64_t bytes_of(Dtype dtype) {
  return dtype == Dtype::float32 ? 4 : 2;
}

// Rows of numbers; strides count elements, not bytes.
struct Matrix {
  const void* values;
  Dtype dtype;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  int64_t column_stride;

  const void* row(int64_t index) const {
    return static_cast<const char*>(values) + index * row_stride * bytes_of(dtype);
  }
  bool operator==(const Matrix&) const = default;
};

// Matrices of one size, one after the other.
struct Batches {
  Matrix first;
  int64_t count;
  int64_t stride;  // in elements

  Matrix operator[](int64_t batch) const {
    Matrix matrix = first;
    matrix.values =
        static_cast<const char*>(matrix.values) + batch * stride * bytes_of(matrix.dtype);
    return matrix;
  }
};

}  // namespace naign
