// The loops of the fused loss for every processor.
#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include <bit>
#include <cstring>

#include "fused_loss/cpu/kernels.h"

namespace naign::cpu {
namespace {

constexpr int64_t width = 4;
constexpr int64_t doubles = 4;

#if defined(__x86_64__)
void stream(void* to, __m128 vector) { _mm_stream_ps(static_cast<float*>(to), vector); }
void finish_streams() { _mm_sfence(); }
#else
template <class Vector>
void stream(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}
void finish_streams() {}
#endif

#include "fused_loss/cpu/common.inc"

}  // namespace

template <>
const LossLoops& loss_loops<Isa::portable>() {
  return loops;
}

}  // namespace naign::cpu
