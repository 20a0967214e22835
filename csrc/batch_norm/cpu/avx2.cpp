// The loops of batch normalisation for AVX2.
#if defined(__x86_64__)
#include <algorithm>
#include <cstring>

#include "batch_norm/cpu/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2,fma")

namespace naign::cpu {
namespace {

constexpr int64_t width = 8;
constexpr int64_t doubles = 4;

#include "batch_norm/cpu/common.inc"

}  // namespace

template <>
const BatchNormLoops& batch_norm_loops<Isa::avx2>() {
  return loops;
}

}  // namespace naign::cpu

#pragma GCC pop_options
#endif
