// Counter-based standard normal numbers: a pure function of (seed, row, column), for any row of a
// table without the others:
//
//   words w0..w3 = Philox4x32-10 with key (seed low, seed high) and counter (row low, row high,
//   column / 4, 0), each part 32 bits (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy
//   as 1, 2, 3, SC 2011; the constants are those of its library Random123);
//   z[row][4 g + 0], z[row][4 g + 1] = normal_pair(w0, w1),
//   z[row][4 g + 2], z[row][4 g + 3] = normal_pair(w2, w3)
//
// where normal_pair is the Box-Muller transform in float32, stated in arithmetic.inc
// operation by operation. It multiplies, adds and takes square roots, each rounded once and none
// fused, so the result is the same to the last bit with any instruction set and number of threads,
// and on CUDA.
#pragma once

#include <cstdint>

#include "common/parallel.h"

struct CUstream_st;  // what a cudaStream_t points to

namespace naign {

// Rows first, first + 1, ... or, where `rows` is given, those; a negative one is filled with zeros.
struct Randn {
  float* out;           // count x columns, contiguous; receives scale * z
  const int64_t* rows;  // count row numbers, or nullptr
  int64_t first;
  int64_t count;
  int64_t columns;  // 1 to 2^34
  uint64_t seed;
  float scale;

  // Counters of a row: each gives four columns, the last one of a row perhaps fewer.
  int64_t groups() const { return (columns + 3) / 4; }
};

namespace cpu {

void randn(const Randn& work, const Parallel& parallel);

}  // namespace cpu

namespace cuda {

// Enqueues a kernel and returns a cudaError_t. All pointers are to the current device's memory.
int randn(const Randn& work, CUstream_st* stream);

}  // namespace cuda
}  // namespace naign
