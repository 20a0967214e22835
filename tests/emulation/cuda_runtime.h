// CUDA on one CPU thread, as far as the kernels of the fused loss go: the threads of a block are
// coroutines that change hands at barriers and shuffles, blocks run one after the other. A barrier
// that some thread never reaches is an error, as are accesses that address sanitizer finds.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__
#define __grid_constant__
#define __launch_bounds__(...)

using std::max;
using std::min;

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};
struct dim3 {
  dim3(unsigned x_ = 1) : x(x_) {}
  unsigned x;
};

struct CUstream_st {};
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

inline dim3 threadIdx, blockIdx, gridDim;

namespace emulation {

constexpr size_t stack_bytes = 64 << 10;
constexpr unsigned warp_size = 32;

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  int64_t block_barriers = 0;
  int64_t warp_barriers = 0;
  bool done = false;
};

inline ucontext_t scheduler;
inline std::vector<Thread> threads;
inline std::function<void()> body;
inline unsigned running = 0;
inline std::vector<double> exchanged;

inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

inline void leave() { swapcontext(&threads[running].context, &scheduler); }

// Waits until all threads from `first` on have come here as often as this one.
inline void meet(int64_t Thread::* barriers, unsigned first, unsigned count) {
  const unsigned self = running;
  const int64_t turn = ++(threads[self].*barriers);
  const unsigned last = std::min<unsigned>(first + count, threads.size());
  const auto all_here = [&] {
    return std::all_of(threads.begin() + first, threads.begin() + last, [&](const Thread& thread) {
      return thread.*barriers >= turn || thread.done;
    });
  };
  while (!all_here()) leave();
}

inline void enter() {
  body();
  threads[running].done = true;
  leave();
}

inline void run_block(unsigned count, const std::function<void()>& kernel) {
  body = kernel;
  exchanged.assign(count, 0);
  threads = std::vector<Thread>(count);
  for (Thread& thread : threads) {
    getcontext(&thread.context);
    thread.stack = std::make_unique<char[]>(stack_bytes);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = stack_bytes;
    thread.context.uc_link = &scheduler;
    makecontext(&thread.context, enter, 0);
  }
  for (bool alive = true; alive;) {
    alive = false;
    for (running = 0; running < count; ++running) {
      if (threads[running].done) continue;
      alive = true;
      threadIdx = dim3(running);
      swapcontext(&scheduler, &threads[running].context);
    }
  }
  for (const Thread& thread : threads) {
    if (thread.warp_barriers !=
        threads[(&thread - threads.data()) & ~(warp_size - 1)].warp_barriers) {
      fail("threads of one warp shuffled unequally often");
    }
  }
}

}  // namespace emulation

// Set by the test: what `extern __shared__` arrays name.
extern char* const emulated_shared_memory;
extern const size_t emulated_shared_bytes;

inline void __syncthreads() {
  emulation::meet(&emulation::Thread::block_barriers, 0, emulation::threads.size());
}

inline void __syncwarp() {
  emulation::meet(&emulation::Thread::warp_barriers, emulation::running & ~31u,
                  emulation::warp_size);
}

inline double __shfl_sync(uint32_t, double value, int lane, int width = 32) {
  const unsigned self = emulation::running;
  emulation::exchanged[self] = value;
  __syncwarp();
  const double result = emulation::exchanged[(self & ~static_cast<unsigned>(width - 1)) + lane];
  __syncwarp();
  return result;
}

template <class T>
T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % alignof(T)) emulation::fail("misaligned read");
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return __ldg(from);
}
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }

template <class... Parameters, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Given... given) {
  if (config->dynamicSmemBytes > emulated_shared_bytes) return cudaErrorInvalidValue;
  gridDim = config->gridDim;
  for (unsigned block = 0; block < gridDim.x; ++block) {
    blockIdx = dim3(block);
    std::memset(emulated_shared_memory, 0xff, emulated_shared_bytes);
    emulation::run_block(config->blockDim.x, [&] { kernel(given...); });
  }
  return cudaSuccess;
}
