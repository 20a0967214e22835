// What every CUDA operator needs from torch: the tensor's device, the current stream on it, and
// errors of the runtime as exceptions. Usage, in a file that defines TORCH_TARGET_VERSION:
//
//   const OnDevice here(data);
//   check_cuda(cuda::kernel(..., here.stream), "kernel");
//
// Workspaces are tensors of torch's allocator: made and freed on the current stream, they may be
// let go as soon as the kernels that use them are launched, also while a graph is captured.
#pragma once

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

// torch's header declares it only where USE_CUDA is defined, as torch's own build does.
extern "C" AOTI_TORCH_EXPORT AOTITorchError aoti_torch_get_current_cuda_stream(int32_t device_index,
                                                                               void** ret_stream);

namespace naign::glue {

inline cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == AOTI_TORCH_SUCCESS,
                  "torch gives no current stream for CUDA device ", device);
  return static_cast<cudaStream_t>(stream);
}

// While it lives, the tensor's device is the current one.
struct OnDevice {
  explicit OnDevice(const torch::stable::Tensor& tensor)
      : guard(tensor.get_device_index()), stream(current_stream(tensor.get_device_index())) {}

  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;
};

// Launches report here; nothing waits for the device.
inline void check_cuda(cudaError_t status, const char* what) {
  STD_TORCH_CHECK(status == cudaSuccess, what, ": ", cudaGetErrorName(status), ": ",
                  cudaGetErrorString(status));
}

// Uninitialised bytes on the tensor's device, 512-byte aligned.
inline torch::stable::Tensor workspace(const torch::stable::Tensor& like, int64_t bytes) {
  return torch::stable::new_empty(like, {bytes}, torch::headeronly::ScalarType::Byte);
}

}  // namespace naign::glue
