// The loops of batch normalisation for AVX-512.
#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#include "batch_norm/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t width = 16;
constexpr int64_t doubles = 8;

#include "batch_norm/cpu/common.inc"

}  // namespace

template <>
const BatchNormLoops& batch_norm_loops<Isa::avx512>() {
  return loops;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
