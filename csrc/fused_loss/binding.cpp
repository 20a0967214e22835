// The fused loss as a torch operator.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>
#include <tuple>

#include "fused_loss/binding.h"

namespace naign::glue {
namespace {

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fused_loss(
    const Tensor& data, const Tensor& reconstruction, std::optional<Tensor> matched,
    std::optional<Tensor> projected, double reconstruction_weight, double imle_weight,
    double idempotence_weight, bool l1) {
  const LossInputs inputs =
      loss_inputs(data, reconstruction, matched, projected,
                  {reconstruction_weight, imle_weight, idempotence_weight}, l1);
  double terms[3];
  cpu::fused_loss(inputs.loss, terms, torch_threads());
  Tensor total = empty_like_device(data, {}, ScalarType::Float);
  Tensor each = empty_like_device(data, {3}, ScalarType::Float);
  double sum = 0;
  for (int t = 0; t < 3; ++t) {
    static_cast<float*>(each.mutable_data_ptr())[t] = static_cast<float>(terms[t]);
    sum += inputs.loss.weights[t] * terms[t];
  }
  *static_cast<float*>(total.mutable_data_ptr()) = static_cast<float>(sum);
  return {total, each, inputs.reconstruction.gradient, inputs.matched.gradient,
          inputs.projected.gradient};
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "fused_loss(Tensor data, Tensor reconstruction, Tensor? matched, Tensor? projected, "
      "float reconstruction_weight, float imle_weight, float idempotence_weight, bool l1) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
  m.def(
      "fused_loss_scale_(Tensor scale, Tensor(a!)? reconstruction, Tensor(b!)? matched, "
      "Tensor(c!)? projected) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("fused_loss", TORCH_BOX(&naign::glue::fused_loss));
}
