// Starting kernels, and their dynamic shared memory.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace naign::cuda {

// True where this pass makes code for devices without cp.async, 8-bit matrix instructions of 32
// columns, and sums over a warp. They run the exact comparison alone (Device in
// imle_knn/cuda/plan.h), and the loss with fewer threads.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool before_ampere = true;
#else
constexpr bool before_ampere = false;
#endif

template <class... Parameters>
cudaError_t start(void (*kernel)(Parameters...), dim3 grid, int threads, size_t shared_bytes,
                  cudaStream_t stream, const std::type_identity_t<Parameters>&... arguments) {
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

__device__ inline int8_t* dynamic_shared_memory() {
#ifdef __CUDACC__
  extern __shared__ __align__(1024) int8_t memory[];
  return memory;
#else
  return emulated_shared_memory();
#endif
}

}  // namespace naign::cuda
