// Normal numbers as a function of arrays, for tests/native/test_randn_emulated.py.
#include "randn/randn.h"

#include <cuda_runtime.h>

extern "C" int emulated_randn(float* out, const int64_t* rows, int64_t first, int64_t count,
                              int64_t columns, uint64_t seed, float scale, int multiprocessors) {
  emulation::multiprocessors = multiprocessors;
  return naign::cuda::randn({out, rows, first, count, columns, seed, scale}, nullptr);
}
