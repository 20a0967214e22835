// The fused loss as torch operators.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "fused_loss/binding.h"

#include <tuple>
#include <utility>
#include <vector>

namespace naign::glue {
namespace {

std::tuple<Tensor, Tensor, std::vector<Tensor>> fused_loss(const std::vector<Tensor>& tensors,
                                                           const std::vector<int64_t>& predictions,
                                                           const std::vector<int64_t>& targets,
                                                           const std::vector<double>& weights,
                                                           bool l1,
                                                           const std::vector<int64_t>& wanted) {
  LossInputs inputs = loss_inputs(tensors, predictions, targets, weights, l1, wanted);
  const std::vector<double> terms = cpu::fused_loss(inputs.loss, torch_threads());
  const int64_t count = static_cast<int64_t>(terms.size());
  Tensor total = empty_like_device(tensors[0], {}, ScalarType::Float);
  Tensor each = empty_like_device(tensors[0], {count}, ScalarType::Float);
  double sum = 0;
  for (int64_t t = 0; t < count; ++t) {
    static_cast<float*>(each.mutable_data_ptr())[t] = static_cast<float>(terms[t]);
    sum += weights[t] * terms[t];
  }
  *static_cast<float*>(total.mutable_data_ptr()) = static_cast<float>(sum);
  return {total, each, std::move(inputs.gradients)};
}

std::vector<Tensor> fused_loss_gradients(const std::vector<Tensor>& tensors,
                                         const std::vector<int64_t>& predictions,
                                         const std::vector<int64_t>& targets,
                                         const std::vector<double>& weights, bool l1,
                                         const std::vector<int64_t>& wanted, const Tensor& scale) {
  LossInputs inputs = loss_inputs(tensors, predictions, targets, weights, l1, wanted);
  inputs.loss.scale = loss_scale(scale, tensors[0]);
  cpu::fused_loss(inputs.loss, torch_threads());
  return inputs.gradients;
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "fused_loss(Tensor[] tensors, int[] predictions, int[] targets, float[] weights, bool l1, "
      "int[] wanted) -> (Tensor total, Tensor terms, Tensor[] gradients)");
  m.def(
      "fused_loss_gradients(Tensor[] tensors, int[] predictions, int[] targets, float[] weights, "
      "bool l1, int[] wanted, Tensor scale) -> Tensor[]");
  m.def("fused_loss_scale_(Tensor(a!)[] gradients, Tensor scale) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("fused_loss", TORCH_BOX(&naign::glue::fused_loss));
  m.impl("fused_loss_gradients", TORCH_BOX(&naign::glue::fused_loss_gradients));
}
