// The loops of the fused loss for every processor.
#include <bit>
#include <cstring>

#include "fused_loss_kernels.h"

namespace naign::cpu {
namespace {

constexpr int64_t width = 4;

#include "fused_loss_common.h"

}  // namespace

const LossKernels& loss_kernels_portable() { return loss_kernels; }

}  // namespace naign::cpu
