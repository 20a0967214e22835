// Normal numbers as a torch operator on CUDA.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>

#include "common/cuda_stream.h"
#include "randn/binding.h"

namespace naign::glue {
namespace {

void randn_cuda(const Tensor& out, std::optional<Tensor> rows, int64_t first, int64_t seed,
                double scale) {
  const OnDevice here(out);
  const RandnInputs inputs = randn_inputs(out, rows, first, seed, scale);
  check_cuda(static_cast<cudaError_t>(cuda::randn(inputs.work, here.stream)), "randn");
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) { m.impl("randn", TORCH_BOX(&naign::glue::randn_cuda)); }
