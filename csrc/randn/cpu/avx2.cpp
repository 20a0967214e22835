// Normal numbers with AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/host_device.h"
#include "randn/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t width = 8;
using Floats = float __attribute__((vector_size(width * 4)));
using Words = uint32_t __attribute__((vector_size(width * 4)));
using LongWords = uint64_t __attribute__((vector_size(width * 4)));

inline LongWords product(LongWords a, uint32_t b) {
  return (LongWords)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
}
inline Floats square_root(Floats values) { return _mm256_sqrt_ps(values); }

#include "randn/cpu/common.inc"

}  // namespace

template <>
void randn<Isa::avx2>(const Randn& work, int64_t begin, int64_t end) {
  randn_loop(work, begin, end);
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
