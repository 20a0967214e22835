// Rows of any dtype and stride, read as float32.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/matrix.h"

namespace naign::cuda {

__device__ inline float widen(float value) { return value; }
__device__ inline float widen(__half value) { return __half2float(value); }
__device__ inline float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

// A row as the kernels read it: element k is values[k * stride].
template <class T>
struct Row {
  const T* values;
  int64_t stride;

  __device__ float operator[](int64_t k) const { return widen(values[k * stride]); }
  __device__ Row from(int64_t k) const { return {values + k * stride, stride}; }
};

template <class T>
__device__ Row<T> row_of(const Matrix& matrix, int64_t row) {
  return {static_cast<const T*>(matrix.values) + row * matrix.row_stride, matrix.column_stride};
}

// Calls body(T{}) with the type that stands for dtype.
template <class Body>
__device__ auto with_type(Dtype dtype, const Body& body) {
  if (dtype == Dtype::float16) return body(__half{});
  if (dtype == Dtype::bfloat16) return body(__nv_bfloat16{});
  return body(float{});
}

// Four elements from k on, zero beyond the end of the row.
template <class T>
__device__ float4 four_of(const Row<T>& row, int64_t k, int64_t columns, bool aligned) {
  if (aligned && k + 4 <= columns) {
    if constexpr (sizeof(T) == 4) {
      return *reinterpret_cast<const float4*>(row.values + k);
    } else {
      const uint2 bits = *reinterpret_cast<const uint2*>(row.values + k);
      const T* halves = reinterpret_cast<const T*>(&bits);
      return {widen(halves[0]), widen(halves[1]), widen(halves[2]), widen(halves[3])};
    }
  }
  float4 four{0, 0, 0, 0};
  if (k < columns) four.x = row[k];
  if (k + 1 < columns) four.y = row[k + 1];
  if (k + 2 < columns) four.z = row[k + 2];
  if (k + 3 < columns) four.w = row[k + 3];
  return four;
}

// True where every fourth element of every row may be read as one vector.
inline bool aligned_for_four(const Matrix& matrix) {
  const int64_t bytes = 4 * bytes_of(matrix.dtype);
  return matrix.column_stride == 1 && matrix.row_stride % 4 == 0 &&
         reinterpret_cast<uintptr_t>(matrix.values) % bytes == 0;
}

__device__ inline bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7fffffffu) < 0x7f800000u;
}

__device__ inline double add_square_of(double sum, float x, float y) {
  const double difference = static_cast<double>(x) - static_cast<double>(y);
  return __dadd_rn(sum, __dmul_rn(difference, difference));
}

// The distance that decides, by one warp: lane l holds partial sum l. Every lane gets it.
template <class X, class Y>
__device__ double exact_distance(Row<X> x, Row<Y> y, int64_t columns, int lane) {
  // Reads under way at once: a few warps read long rows, and wait for memory.
  constexpr int batch = 8;
  double sum = 0;
  x = x.from(lane);
  y = y.from(lane);
  int left = static_cast<int>(columns) - lane;
  for (; left > (batch - 1) * 32; left -= batch * 32) {
    X of_x[batch];
    Y of_y[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      of_x[i] = *x.values;
      of_y[i] = *y.values;
      x = x.from(32);
      y = y.from(32);
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) sum = add_square_of(sum, widen(of_x[i]), widen(of_y[i]));
  }
  for (; left > 0; left -= 32) {
    sum = add_square_of(sum, x[0], y[0]);
    x = x.from(32);
    y = y.from(32);
  }
#pragma unroll
  for (int width = 16; width > 0; width /= 2) {
    sum = __dadd_rn(sum, __shfl_xor_sync(~0u, sum, width));
  }
  return sum;
}

// A float32 sum of squared differences by one warp, two partial sums a lane: lemma 9.
template <class X, class Y>
__device__ float screen_distance(Row<X> x, Row<Y> y, int64_t columns, int lane) {
  float even = 0;
  float odd = 0;
  x = x.from(lane);
  y = y.from(lane);
  int left = static_cast<int>(columns) - lane;
#pragma unroll 4
  for (; left > 32; left -= 64) {
    const float first = x[0] - y[0];
    const float second = x[32] - y[32];
    even = fmaf(first, first, even);
    odd = fmaf(second, second, odd);
    x = x.from(64);
    y = y.from(64);
  }
  if (left > 0) {
    const float last = x[0] - y[0];
    even = fmaf(last, last, even);
  }
  float sum = even + odd;
#pragma unroll
  for (int width = 16; width > 0; width /= 2) sum += __shfl_xor_sync(~0u, sum, width);
  return sum;
}

}  // namespace naign::cuda
