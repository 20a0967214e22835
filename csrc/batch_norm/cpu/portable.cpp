// The loops of batch normalisation on every processor.
#include <algorithm>
#include <cstring>

#include "batch_norm/cpu/kernels.h"

namespace naign::cpu {
namespace {

constexpr int64_t width = 4;
constexpr int64_t doubles = 2;

#include "batch_norm/cpu/common.inc"

}  // namespace

template <>
const BatchNormLoops& batch_norm_loops<Isa::portable>() {
  return loops;
}

}  // namespace naign::cpu
