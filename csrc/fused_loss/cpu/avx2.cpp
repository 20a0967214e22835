// The loops of the fused loss for AVX2.
#if defined(__x86_64__)
#include <immintrin.h>

#include <bit>
#include <cstring>

#include "fused_loss/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t width = 8;
constexpr int64_t doubles = 4;

void stream(void* to, __m256 vector) { _mm256_stream_ps(static_cast<float*>(to), vector); }
void finish_streams() { _mm_sfence(); }

#include "fused_loss/cpu/common.inc"

}  // namespace

template <>
const LossLoops& loss_loops<Isa::avx2>() {
  return loops;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
