// The loops of the fused loss for AVX-512.
#if defined(__x86_64__)
#include <bit>
#include <cstring>

#include "fused_loss_kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t width = 8;

#include "fused_loss_common.h"

}  // namespace

const LossKernels& loss_kernels_avx512() { return loss_kernels; }

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
