// Normal numbers on every processor.
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/host_device.h"
#include "randn/cpu/kernels.h"

namespace naign::cpu {
namespace {

constexpr int64_t width = 4;
using Floats = float __attribute__((vector_size(width * 4)));
using Words = uint32_t __attribute__((vector_size(width * 4)));
using LongWords = uint64_t __attribute__((vector_size(width * 4)));

#if defined(__x86_64__)
inline LongWords product(LongWords a, uint32_t b) {
  return (LongWords)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
}
inline Floats square_root(Floats values) { return _mm_sqrt_ps(values); }
#else
inline LongWords product(LongWords a, uint32_t b) { return (a & 0xffffffffu) * b; }
inline Floats square_root(Floats values) {
  for (int64_t lane = 0; lane < width; ++lane) values[lane] = std::sqrt(values[lane]);
  return values;
}
#endif

#include "randn/cpu/common.inc"

}  // namespace

template <>
void randn<Isa::portable>(const Randn& work, int64_t begin, int64_t end) {
  randn_loop(work, begin, end);
}

}  // namespace naign::cpu
