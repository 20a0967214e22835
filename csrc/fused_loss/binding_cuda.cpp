// The fused loss as a torch operator on CUDA.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>
#include <tuple>

#include "common/cuda_stream.h"
#include "fused_loss/binding.h"

namespace naign::glue {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fused_loss_cuda(
    const Tensor& data, const Tensor& reconstruction, std::optional<Tensor> matched,
    std::optional<Tensor> projected, double reconstruction_weight, double imle_weight,
    double idempotence_weight, bool l1) {
  const OnDevice here(data);
  const LossInputs inputs =
      loss_inputs(data, reconstruction, matched, projected,
                  {reconstruction_weight, imle_weight, idempotence_weight}, l1);
  Tensor total = empty_like_device(data, {}, ScalarType::Float);
  Tensor each = empty_like_device(data, {3}, ScalarType::Float);
  Tensor sums = workspace(data, cuda::fused_loss_workspace_bytes(inputs.loss.pieces()));
  const int status = cuda::fused_loss(inputs.loss, static_cast<float*>(total.mutable_data_ptr()),
                                      static_cast<float*>(each.mutable_data_ptr()),
                                      sums.mutable_data_ptr(), here.stream);
  check_cuda(static_cast<cudaError_t>(status), "fused_loss");
  return {total, each, inputs.reconstruction.gradient, inputs.matched.gradient,
          inputs.projected.gradient};
}

// Gradients as fused_loss made them: contiguous, of one size.
void fused_loss_scale_cuda(const Tensor& scale, std::optional<Tensor> reconstruction,
                           std::optional<Tensor> matched, std::optional<Tensor> projected) {
  STD_TORCH_CHECK(scale.numel() == 1 && scale.scalar_type() == ScalarType::Float,
                  "scale: expected one float32 number");
  const OnDevice here(scale);
  LossTensor views[3]{};
  int64_t elements = 0;
  const std::optional<Tensor>* const gradients[] = {&reconstruction, &matched, &projected};
  for (int t = 0; t < 3; ++t) {
    if (!gradients[t]->has_value()) continue;
    const Tensor& gradient = **gradients[t];
    STD_TORCH_CHECK(gradient.is_contiguous() && (elements == 0 || gradient.numel() == elements),
                    "gradients: expected contiguous tensors of one size");
    check_device(gradient, scale, "gradients");
    elements = gradient.numel();
    views[t] = {nullptr, gradient.mutable_data_ptr(), dtype_of(gradient, "gradients")};
  }
  const int status = cuda::scale_gradients(
      views, elements, static_cast<const float*>(scale.const_data_ptr()), here.stream);
  check_cuda(static_cast<cudaError_t>(status), "fused_loss_scale_");
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) {
  m.impl("fused_loss", TORCH_BOX(&naign::glue::fused_loss_cuda));
  m.impl("fused_loss_scale_", TORCH_BOX(&naign::glue::fused_loss_scale_cuda));
}
