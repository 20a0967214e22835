// Normal numbers as a torch operator on CUDA.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>

#include "common/cuda_stream.h"
#include "randn/binding.h"

namespace naign::glue {
namespace {

void normals_cuda(const Tensor& out, std::optional<Tensor> rows, int64_t first, int64_t seed,
                  double scale) {
  const OnDevice here(out);
  const NormalsInputs inputs = normals_inputs(out, rows, first, seed, scale);
  check_cuda(static_cast<cudaError_t>(cuda::normals(inputs.work, here.stream)), "normals");
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) {
  m.impl("normals", TORCH_BOX(&naign::glue::normals_cuda));
}
