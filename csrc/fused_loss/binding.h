// The tensors of the fused loss and the plain struct that its kernels see of them.
#pragma once

#include <algorithm>
#include <vector>

#include "common/tensors.h"
#include "fused_loss/fused_loss.h"

namespace naign::glue {

// A kernel would read the other's memory as its own.
inline void check_device(const Tensor& tensor, const Tensor& other, const char* name) {
  STD_TORCH_CHECK(
      tensor.is_cuda() == other.is_cuda() && tensor.get_device_index() == other.get_device_index(),
      name, ": expected all on one device");
}

// Contiguous inputs, room for the wanted gradients, and what the kernels see of both.
struct LossInputs {
  std::vector<Tensor> values;
  std::vector<Tensor> gradients;
  FusedLoss loss;
};

inline void check_index(int64_t index, size_t count, const char* name) {
  STD_TORCH_CHECK(index >= 0 && index < static_cast<int64_t>(count), name,
                  ": expected indices of tensors, got ", index);
}

inline std::vector<LossTerm> loss_terms(const std::vector<LossTensor>& tensors,
                                        const std::vector<int64_t>& predictions,
                                        const std::vector<int64_t>& targets,
                                        const std::vector<double>& weights) {
  STD_TORCH_CHECK(
      !weights.empty() && predictions.size() == weights.size() && targets.size() == weights.size(),
      "weights: expected one for each prediction and target, and at least one");
  std::vector<LossTerm> terms;
  terms.reserve(weights.size());
  for (size_t t = 0; t < weights.size(); ++t) {
    check_index(predictions[t], tensors.size(), "predictions");
    check_index(targets[t], tensors.size(), "targets");
    STD_TORCH_CHECK(predictions[t] != targets[t] &&
                        tensors[predictions[t]].elements == tensors[targets[t]].elements,
                    "targets: expected another tensor of the prediction's size");
    terms.push_back({predictions[t], targets[t], weights[t]});
  }
  return terms;
}

inline LossInputs loss_inputs(const std::vector<Tensor>& tensors,
                              const std::vector<int64_t>& predictions,
                              const std::vector<int64_t>& targets,
                              const std::vector<double>& weights, bool l1,
                              const std::vector<int64_t>& wanted) {
  STD_TORCH_CHECK(!tensors.empty(), "tensors: expected at least two");
  LossInputs inputs;
  inputs.loss.absolute = l1;
  inputs.loss.scale = nullptr;
  inputs.values.reserve(tensors.size());
  inputs.loss.tensors.reserve(tensors.size());
  inputs.gradients.reserve(wanted.size());
  for (const Tensor& tensor : tensors) {
    check_device(tensor, tensors[0], "tensors");
    const Tensor& values = inputs.values.emplace_back(made_contiguous(tensor));
    inputs.loss.tensors.push_back(
        {values.const_data_ptr(), nullptr, values.numel(), dtype_of(values, "tensors")});
  }
  inputs.loss.terms = loss_terms(inputs.loss.tensors, predictions, targets, weights);
  for (const int64_t index : wanted) {
    check_index(index, tensors.size(), "wanted");
    LossTensor& tensor = inputs.loss.tensors[index];
    STD_TORCH_CHECK(tensor.gradient == nullptr || tensor.elements == 0,
                    "wanted: expected every tensor once");
    STD_TORCH_CHECK(std::any_of(inputs.loss.terms.begin(), inputs.loss.terms.end(),
                                [&](const LossTerm& term) { return touches(term, index); }),
                    "wanted: expected tensors of some term");
    const Tensor& gradient = inputs.gradients.emplace_back(empty_alike(tensors[index]));
    tensor.gradient = gradient.mutable_data_ptr();
  }
  return inputs;
}

inline const float* loss_scale(const Tensor& scale, const Tensor& tensor) {
  STD_TORCH_CHECK(scale.numel() == 1 && scale.scalar_type() == ScalarType::Float,
                  "scale: expected one float32 number");
  check_device(scale, tensor, "scale");
  return static_cast<const float*>(scale.const_data_ptr());
}

}  // namespace naign::glue
