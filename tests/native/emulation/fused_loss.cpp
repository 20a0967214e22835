// The fused loss as a function of arrays, for tests/native/test_fused_loss_emulated.py.
#include <cuda_runtime.h>

#include "fused_loss/plan.h"

extern "C" void emulated_device(int capability, int backwards) {
  emulation::capability = capability;
  emulation::backwards = backwards != 0;
}

// Rows of a table: a tensor's values, its gradient, elements and dtype.
struct TensorRow {
  const void* values;
  void* gradient;
  int64_t elements;
  int64_t dtype;
};

static std::vector<naign::LossTensor> tensors_of(const TensorRow* rows, int count) {
  std::vector<naign::LossTensor> tensors;
  for (int t = 0; t < count; ++t) {
    const TensorRow& row = rows[t];
    tensors.push_back({row.values, row.gradient, row.elements, naign::Dtype(row.dtype)});
  }
  return tensors;
}

extern "C" int emulated_fused_loss(const TensorRow* tensors, int tensor_count,
                                   const int64_t* predictions, const int64_t* targets,
                                   const double* weights, int term_count, bool absolute,
                                   const float* scale, float* total, float* terms) {
  naign::FusedLoss loss{tensors_of(tensors, tensor_count), {}, absolute, scale};
  for (int t = 0; t < term_count; ++t) {
    loss.terms.push_back({predictions[t], targets[t], weights[t]});
  }
  const int64_t bytes = naign::cuda::fused_loss_workspace_bytes(loss);
  std::vector<double> workspace(bytes / sizeof(double) + 1);
  return naign::cuda::fused_loss(loss, total, terms, workspace.data(), nullptr);
}

extern "C" int emulated_scale_gradients(const TensorRow* tensors, int count, const float* scale) {
  return naign::cuda::scale_gradients(tensors_of(tensors, count), scale, nullptr);
}

// How many steps each group of a loss takes; 0 after the last one.
extern "C" void loss_steps(const TensorRow* tensors, int tensor_count, const int64_t* predictions,
                           const int64_t* targets, int term_count, int64_t* steps) {
  naign::FusedLoss loss{tensors_of(tensors, tensor_count), {}, false, nullptr};
  for (int t = 0; t < term_count; ++t) loss.terms.push_back({predictions[t], targets[t], 1});
  for (const naign::LossGroup& group : naign::loss_groups(loss)) {
    *steps++ = static_cast<int64_t>(group.steps.size());
  }
  *steps = 0;
}
