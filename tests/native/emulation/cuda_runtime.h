// CUDA on one CPU thread, as far as our kernels go. A block's threads are coroutines that change
// hands where they wait; blocks run one after the other. Copies and matrix products that the device
// does behind the threads' back happen as early or as late as the program allows.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <typeinfo>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __CUDA_ARCH_FEAT_SM90_ALL

using std::max;
using std::min;

struct alignas(16) float4 {
  float x, y, z, w;
};
struct float2 {
  float x, y;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct dim3 {
  dim3(unsigned x_ = 1, unsigned y_ = 1) : x(x_), y(y_) {}
  unsigned x, y;
};
inline dim3 threadIdx, blockIdx, gridDim;

struct CUstream_st {};
using cudaStream_t = CUstream_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorNotSupported = 801 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum {
  cudaDevAttrMultiProcessorCount,
  cudaDevAttrComputeCapabilityMajor,
  cudaDevAttrMaxSharedMemoryPerBlockOptin
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

namespace emulation {

constexpr size_t stack_bytes = 128 << 10;
constexpr size_t shared_bytes = 228 << 10;
constexpr uint32_t shared_base = 512;  // the address of the first byte

inline int multiprocessors = 1;
inline int capability = 90;  // ten times the major number, and the minor one
inline bool late = false;
// Threads run from the last to the first, and blocks too: what lacks a barrier comes out otherwise.
inline bool backwards = false;

inline unsigned in_order(unsigned turn, unsigned count) {
  return backwards ? count - 1 - turn : turn;
}

struct Thread {
  jmp_buf place;              // where it goes on
  bool started = false;       // has a stack, and waits on it between two blocks
  int64_t meetings[17] = {};  // of the block, of named barriers, of the warp
  bool done = false;
};

inline jmp_buf scheduler;
// They outlive their block: fresh stacks would be cleared page by page.
inline std::array<Thread, 1024> threads;
inline unsigned block_threads = 0;
inline std::function<void()> body;
inline unsigned running = 0;
alignas(1024) inline int8_t shared_memory[shared_bytes];

// Called before a launch with each of the kernel's parameters: for tests that count.
inline std::function<void(const std::type_info&, const void*)> before_launch;

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulation: %s\n", what);
  std::abort();
}

// Instructions come with an architecture.
inline void needs(int least, int most = 999) {
  if (capability < least || capability > most) fail("an instruction that this device lacks");
}

// CUDA C++ programming guide, technical specifications per compute capability.
inline size_t most_shared_bytes() {
  const int kib = capability < 80                             ? 64
                  : capability == 80 || capability == 87      ? 163
                  : capability == 90 || capability / 10 == 10 ? 227
                                                              : 99;
  return static_cast<size_t>(kib) << 10;
}

inline void leave() {
  if (_setjmp(threads[running].place) == 0) _longjmp(scheduler, 1);
}

// Waits until `count` threads from `first` on have met here as often as this one, or ended.
inline void meet(int place, unsigned first, unsigned count) {
  const int64_t turn = ++threads[running].meetings[place];
  const unsigned last = std::min(first + count, block_threads);
  const auto all_here = [&] {
    for (unsigned t = first; t < last; ++t) {
      if (threads[t].meetings[place] < turn && !threads[t].done) return false;
    }
    return true;
  };
  while (!all_here()) leave();
}
inline int64_t meet_warp() {
  meet(16, running & ~31u, 32);
  return threads[running].meetings[16];
}

[[noreturn]] inline void live() {
  for (;;) {
    body();
    threads[running].done = true;
    leave();
  }
}

inline void start_on_a_stack_of_its_own() {
  static std::vector<std::unique_ptr<char[]>> stacks;
  static ucontext_t context;
  threads[running].started = true;
  stacks.push_back(std::make_unique_for_overwrite<char[]>(stack_bytes));
  getcontext(&context);
  context.uc_stack.ss_sp = stacks.back().get();
  context.uc_stack.ss_size = stack_bytes;
  makecontext(&context, live, 0);
  setcontext(&context);
}

// Until the thread waits for others, or ends. Without the system call that swapcontext makes.
inline void resume(unsigned thread) {
  running = thread;
  threadIdx = dim3(thread);
  if (_setjmp(scheduler) != 0) return;
  if (threads[thread].started) _longjmp(threads[thread].place, 1);
  start_on_a_stack_of_its_own();
}

inline void run_block(unsigned count, const std::function<void()>& kernel) {
  if (count % 32 != 0 || count > threads.size()) fail("a block");
  body = kernel;
  block_threads = count;
  for (unsigned t = 0; t < count; ++t) {
    threads[t].done = false;
    std::fill_n(threads[t].meetings, 17, 0);
  }
  int64_t turns = 0;
  for (bool alive = true; alive;) {
    alive = false;
    if (++turns > 2000000) fail("threads wait for ever");
    for (unsigned turn = 0; turn < count; ++turn) {
      const unsigned thread = in_order(turn, count);
      if (threads[thread].done) continue;
      alive = true;
      resume(thread);
    }
  }
  for (unsigned t = 0; t < count; ++t) {
    if (threads[t].meetings[16] != threads[t & ~31u].meetings[16]) {
      fail("lanes of a warp exchanged unequally often");
    }
  }
}

// What every lane of the warp gives, seen by all of them.
template <class T>
std::array<T, 32> exchange(const T& value) {
  // A lane may be one exchange ahead of another that still reads.
  static std::array<T, 1024> given[2];
  auto& mine = given[threads[running].meetings[16] % 2];
  mine[running] = value;
  meet_warp();
  std::array<T, 32> all;
  std::copy_n(mine.begin() + (running & ~31u), 32, all.begin());
  return all;
}

}  // namespace emulation

inline int8_t* emulated_shared_memory() { return emulation::shared_memory; }

inline void __syncthreads() { emulation::meet(0, 0, emulation::block_threads); }
inline void __syncwarp() { emulation::meet_warp(); }
inline void __threadfence() {}

template <class T>
T __shfl_sync(uint32_t, T value, int lane, int width = 32) {
  const int first = static_cast<int>(emulation::running % 32) / width * width;
  return emulation::exchange(value)[first + lane];
}
template <class T>
T __shfl_xor_sync(uint32_t, T value, int lanes) {
  return emulation::exchange(value)[emulation::running % 32 ^ lanes];
}
inline uint32_t __ballot_sync(uint32_t, bool value) {
  const auto all = emulation::exchange<int>(value);
  uint32_t bits = 0;
  for (size_t i = 0; i < all.size(); ++i) bits |= static_cast<uint32_t>(all[i]) << i;
  return bits;
}
inline bool __any_sync(uint32_t mask, bool value) { return __ballot_sync(mask, value) != 0; }
inline bool __all_sync(uint32_t mask, bool value) { return __ballot_sync(mask, !value) == 0; }
inline int __popc(uint32_t bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return std::countr_zero(static_cast<uint32_t>(bits)) + 1; }

template <class T, class Change>
T atomically(T* at, const Change& change) {
  const T old = *at;
  *at = change(old);
  return old;
}
inline uint32_t atomicAdd(uint32_t* at, uint32_t value) {
  return atomically(at, [&](uint32_t old) { return old + value; });
}
inline int atomicAdd(int* at, int value) {
  return atomically(at, [&](int old) { return old + value; });
}
inline unsigned long long atomicMin(unsigned long long* at, unsigned long long value) {
  return atomically(at, [&](unsigned long long old) { return std::min(old, value); });
}
inline int atomicMax(int* at, int value) {
  return atomically(at, [&](int old) { return std::max(old, value); });
}
inline int atomicCAS(int* at, int expected, int value) {
  return atomically(at, [&](int old) { return old == expected ? value : old; });
}
inline int atomicExch(int* at, int value) {
  return atomically(at, [&](int) { return value; });
}

template <class T>
T __ldg(const T* from) {
  if (reinterpret_cast<uintptr_t>(from) % alignof(T) != 0) emulation::fail("misaligned read");
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return __ldg(from);
}
template <class T>
T __ldcg(const T* from) {
  return __ldg(from);
}
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __uint_as_float(uint32_t bits) { return std::bit_cast<float>(bits); }
inline uint32_t __float_as_uint(float value) { return std::bit_cast<uint32_t>(value); }
inline int __float_as_int(float value) { return std::bit_cast<int>(value); }
inline long long __double_as_longlong(double value) { return std::bit_cast<long long>(value); }

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline void cudaGetDevice(int* device) { *device = 0; }
inline void cudaDeviceGetAttribute(int* value, int attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = emulation::multiprocessors;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = emulation::capability / 10;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(emulation::most_shared_bytes());
      break;
    default:
      emulation::fail("an unknown attribute");
  }
}
inline void cudaMemsetAsync(void* at, int value, size_t bytes, cudaStream_t) {
  std::memset(at, value, bytes);
}

// The dynamic shared memory that a kernel may use, 48 KiB unless said otherwise.
inline std::map<const void*, size_t> allowed_shared_bytes;
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel kernel, cudaFuncAttribute, size_t bytes) {
  if (bytes > emulation::most_shared_bytes()) emulation::fail("too much shared memory");
  allowed_shared_bytes[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

template <class... Parameters, class... Given>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Given&... given) {
  size_t& allowed = allowed_shared_bytes[reinterpret_cast<const void*>(kernel)];
  allowed = std::max<size_t>(allowed, 48 << 10);
  if (config->dynamicSmemBytes > allowed) emulation::fail("more shared memory than allowed");
  if (config->dynamicSmemBytes > emulation::most_shared_bytes()) {
    emulation::fail("more shared memory than there is");
  }
  if (config->blockDim.x > 1024 || config->gridDim.y > 65535) emulation::fail("a grid");
  if (config->gridDim.x == 0 || config->gridDim.y == 0) emulation::fail("an empty grid");
  if (emulation::before_launch) (emulation::before_launch(typeid(Given), &given), ...);
  gridDim = config->gridDim;
  for (unsigned y = 0; y < gridDim.y; ++y) {
    for (unsigned x = 0; x < gridDim.x; ++x) {
      blockIdx = dim3(emulation::in_order(x, gridDim.x), emulation::in_order(y, gridDim.y));
      std::memset(emulation::shared_memory, 0xff, config->dynamicSmemBytes);
      emulation::run_block(config->blockDim.x, [&] { kernel(given...); });
    }
  }
  return cudaSuccess;
}
