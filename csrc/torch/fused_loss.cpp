// The fused loss as a torch operator.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "naign/fused_loss.h"

#include <optional>
#include <tuple>

#include "tensors.h"

namespace naign::glue {
namespace {

// An input, made contiguous, and room for its gradient.
struct Input {
  Tensor values;
  Tensor gradient;
  LossTensor view{nullptr, nullptr, Dtype::float32};
};

Input input_of(const std::optional<Tensor>& tensor, const Tensor& data, const char* name) {
  if (!tensor.has_value()) {
    return {data, torch::stable::new_empty(data, {int64_t{0}})};
  }
  STD_TORCH_CHECK(tensor->numel() == data.numel(), name, ": expected data's ", data.numel(),
                  " elements, got ", tensor->numel());
  Input input{torch::stable::contiguous(*tensor),
              torch::stable::new_empty(*tensor, tensor->sizes())};
  input.view = {input.values.const_data_ptr(), input.gradient.mutable_data_ptr(),
                dtype_of(*tensor, name)};
  return input;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> fused_loss(
    const Tensor& data, const Tensor& reconstruction, std::optional<Tensor> matched,
    std::optional<Tensor> projected, double reconstruction_weight, double imle_weight,
    double idempotence_weight, bool l1) {
  const Tensor x = torch::stable::contiguous(data);
  const Input r = input_of(reconstruction, data, "reconstruction");
  const Input m = input_of(matched, data, "matched");
  const Input q = input_of(projected, data, "projected");
  STD_TORCH_CHECK(!projected.has_value() || matched.has_value(), "matched: expected f(z)");
  const FusedLoss loss{
      {x.const_data_ptr(), nullptr, dtype_of(x, "data")},       r.view, m.view, q.view, x.numel(),
      {reconstruction_weight, imle_weight, idempotence_weight}, l1};
  double terms[3];
  cpu::fused_loss(loss, terms, torch_threads());
  Tensor total = torch::stable::new_empty(data, {}, ScalarType::Float);
  Tensor each = torch::stable::new_empty(data, {int64_t{3}}, ScalarType::Float);
  double sum = 0;
  for (int t = 0; t < 3; ++t) {
    static_cast<float*>(each.mutable_data_ptr())[t] = static_cast<float>(terms[t]);
    sum += loss.weights[t] * terms[t];
  }
  *static_cast<float*>(total.mutable_data_ptr()) = static_cast<float>(sum);
  return {total, each, r.gradient, m.gradient, q.gradient};
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def(
      "fused_loss(Tensor data, Tensor reconstruction, Tensor? matched, Tensor? projected, "
      "float reconstruction_weight, float imle_weight, float idempotence_weight, bool l1) -> "
      "(Tensor, Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("fused_loss", TORCH_BOX(&naign::glue::fused_loss));
}
