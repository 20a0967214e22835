// The fused loss as a function of arrays, for tests/native/test_fused_loss_emulated.py.
#include <cuda_runtime.h>

#include "fused_loss/fused_loss.h"

extern "C" void emulated_device(int capability, int backwards) {
  emulation::capability = capability;
  emulation::backwards = backwards != 0;
}

extern "C" int emulated_fused_loss(const void* const* values, void* const* gradients,
                                   const int* dtypes, int64_t elements, const double* weights,
                                   bool absolute, float* total, float* terms) {
  naign::FusedLoss loss{};
  naign::LossTensor* tensors[] = {&loss.data, &loss.reconstruction, &loss.matched, &loss.projected};
  for (int t = 0; t < 4; ++t) {
    *tensors[t] = {values[t], gradients[t], static_cast<naign::Dtype>(dtypes[t])};
  }
  loss.elements = elements;
  std::copy_n(weights, 3, loss.weights);
  loss.absolute = absolute;
  std::vector<char> workspace(naign::cuda::fused_loss_workspace_bytes(loss.pieces()));
  return naign::cuda::fused_loss(loss, total, terms, workspace.data(), nullptr);
}

extern "C" int emulated_scale_gradients(void* const* gradients, const int* dtypes, int64_t elements,
                                        const float* scale) {
  naign::LossTensor tensors[3];
  for (int t = 0; t < 3; ++t) {
    tensors[t] = {nullptr, gradients[t], static_cast<naign::Dtype>(dtypes[t])};
  }
  return naign::cuda::scale_gradients(tensors, elements, scale, nullptr);
}
