// The fused loss as torch operators on CUDA.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <tuple>
#include <utility>
#include <vector>

#include "common/cuda_stream.h"
#include "fused_loss/binding.h"

namespace naign::glue {
namespace {

struct Losses {
  Tensor total;
  Tensor terms;
};

Losses launch(const FusedLoss& loss, const Tensor& like, cudaStream_t stream) {
  Losses made{
      empty_like_device(like, {}, ScalarType::Float),
      empty_like_device(like, {static_cast<int64_t>(loss.terms.size())}, ScalarType::Float)};
  Tensor memory = workspace(like, cuda::fused_loss_workspace_bytes(loss));
  const int status = cuda::fused_loss(loss, static_cast<float*>(made.total.mutable_data_ptr()),
                                      static_cast<float*>(made.terms.mutable_data_ptr()),
                                      memory.mutable_data_ptr(), stream);
  check_cuda(static_cast<cudaError_t>(status), "fused_loss");
  return made;
}

std::tuple<Tensor, Tensor, std::vector<Tensor>> fused_loss_cuda(
    const std::vector<Tensor>& tensors, const std::vector<int64_t>& predictions,
    const std::vector<int64_t>& targets, const std::vector<double>& weights, bool l1,
    const std::vector<int64_t>& wanted) {
  LossInputs inputs = loss_inputs(tensors, predictions, targets, weights, l1, wanted);
  const OnDevice here(tensors[0]);
  const Losses made = launch(inputs.loss, tensors[0], here.stream);
  return {made.total, made.terms, std::move(inputs.gradients)};
}

std::vector<Tensor> fused_loss_gradients_cuda(const std::vector<Tensor>& tensors,
                                              const std::vector<int64_t>& predictions,
                                              const std::vector<int64_t>& targets,
                                              const std::vector<double>& weights, bool l1,
                                              const std::vector<int64_t>& wanted,
                                              const Tensor& scale) {
  LossInputs inputs = loss_inputs(tensors, predictions, targets, weights, l1, wanted);
  inputs.loss.scale = loss_scale(scale, tensors[0]);
  const OnDevice here(tensors[0]);
  launch(inputs.loss, tensors[0], here.stream);
  return std::move(inputs.gradients);
}

// Gradients as fused_loss made them: contiguous.
void fused_loss_scale_cuda(const std::vector<Tensor>& gradients, const Tensor& scale) {
  if (gradients.empty()) return;
  std::vector<LossTensor> views;
  for (const Tensor& gradient : gradients) {
    STD_TORCH_CHECK(gradient.is_contiguous(), "gradients: expected contiguous tensors");
    check_device(gradient, gradients[0], "gradients");
    views.push_back(
        {nullptr, gradient.mutable_data_ptr(), gradient.numel(), dtype_of(gradient, "gradients")});
  }
  const float* const factor = loss_scale(scale, gradients[0]);
  const OnDevice here(gradients[0]);
  const int status = cuda::scale_gradients(views, factor, here.stream);
  check_cuda(static_cast<cudaError_t>(status), "fused_loss_scale_");
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_IMPL(naign, CUDA, m) {
  m.impl("fused_loss", TORCH_BOX(&naign::glue::fused_loss_cuda));
  m.impl("fused_loss_gradients", TORCH_BOX(&naign::glue::fused_loss_gradients_cuda));
  m.impl("fused_loss_scale_", TORCH_BOX(&naign::glue::fused_loss_scale_cuda));
}
