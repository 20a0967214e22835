// The tensors of the fused loss and the plain struct that its kernels see of them.
#pragma once

#include <optional>

#include "common/tensors.h"
#include "fused_loss/fused_loss.h"

namespace naign::glue {

// A kernel would read the other's memory as its own.
inline void check_device(const Tensor& tensor, const Tensor& data, const char* name) {
  STD_TORCH_CHECK(
      tensor.is_cuda() == data.is_cuda() && tensor.get_device_index() == data.get_device_index(),
      name, ": expected data's device");
}

// An input, made contiguous, and room for its gradient, both empty where the term is absent.
struct LossInput {
  Tensor values;
  Tensor gradient;
  LossTensor view{nullptr, nullptr, Dtype::float32};
};

inline LossInput loss_input(const std::optional<Tensor>& tensor, const Tensor& data,
                            const char* name) {
  if (!tensor.has_value()) {
    return {data, empty_like_device(data, {0}, data.scalar_type())};
  }
  STD_TORCH_CHECK(tensor->numel() == data.numel(), name, ": expected data's ", data.numel(),
                  " elements, got ", tensor->numel());
  check_device(*tensor, data, name);
  LossInput input{made_contiguous(*tensor), empty_alike(*tensor)};
  input.view = {input.values.const_data_ptr(), input.gradient.mutable_data_ptr(),
                dtype_of(*tensor, name)};
  return input;
}

struct LossInputs {
  Tensor data;
  LossInput reconstruction;
  LossInput matched;
  LossInput projected;
  FusedLoss loss;
};

inline LossInputs loss_inputs(const Tensor& data, const Tensor& reconstruction,
                              const std::optional<Tensor>& matched,
                              const std::optional<Tensor>& projected, const double (&weights)[3],
                              bool l1) {
  STD_TORCH_CHECK(!projected.has_value() || matched.has_value(), "matched: expected f(z)");
  LossInputs inputs{made_contiguous(data),
                    loss_input(reconstruction, data, "reconstruction"),
                    loss_input(matched, data, "matched"),
                    loss_input(projected, data, "projected"),
                    {}};
  const LossTensor x{inputs.data.const_data_ptr(), nullptr, dtype_of(data, "data")};
  inputs.loss = {x,
                 inputs.reconstruction.view,
                 inputs.matched.view,
                 inputs.projected.view,
                 data.numel(),
                 {weights[0], weights[1], weights[2]},
                 l1};
  return inputs;
}

}  // namespace naign::glue
