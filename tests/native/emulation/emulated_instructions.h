// The instructions of ptx.cuh and wgmma.cuh as the PTX ISA describes them.
#pragma once

#include <cuda_runtime.h>

#include <array>
#include <deque>

namespace naign::cuda {
namespace emulated {

struct Barrier {
  uint32_t arrivals, left;
  int64_t bytes = 0;
  uint32_t phase = 0;
  std::deque<std::function<void()>> copies;

  void settle() {
    if (left > 0 || bytes > 0) return;
    ++phase;
    left = arrivals;
  }
};
inline std::map<uint32_t, Barrier> barriers;

// Work that a thread has started, in groups.
struct Started {
  std::vector<std::function<void()>> open;
  std::deque<std::vector<std::function<void()>>> groups;

  void add(const std::function<void()>& work) { emulation::late ? open.push_back(work) : work(); }
  void commit() {
    groups.push_back(std::move(open));
    open.clear();
  }
  void wait(size_t pending) {
    for (; groups.size() > pending; groups.pop_front()) {
      for (const auto& work : groups.front()) work();
    }
  }
};
inline std::map<unsigned, Started> copies;
inline std::map<unsigned, Started> products;

inline int8_t* at(uint32_t address) {
  if (address < emulation::shared_base) emulation::fail("an address before shared memory");
  return emulation::shared_memory + (address - emulation::shared_base);
}

// 32 bytes of an operand's row; the swizzle keeps pieces of 16 together.
inline void operand(uint64_t descriptor, int row, int8_t (&out)[32]) {
  const uint64_t start = (descriptor & 0x3fff) << 4;
  const uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
  if (descriptor >> 62 != 1 || (descriptor >> 49 & 7) != 0) emulation::fail("a descriptor");
  for (int piece = 0; piece < 32; piece += 16) {
    const auto linear = static_cast<uint32_t>(start + row / 8 * stride + row % 8 * 128 + piece);
    std::memcpy(out + piece, at(linear ^ (linear >> 7 & 7) << 4), 16);
  }
}

// Adds the products of two rows of 32 bytes. No sum may leave 32 bits, not even for a moment: the
// device's accumulators would wrap or saturate.
inline void add_products(int32_t& sum, const int8_t (&x)[32], const int8_t (&y)[32]) {
  for (int half = 0; half < 32; half += 16) {
    int32_t products = 0;
    for (int k = half; k < half + 16; ++k) products += x[k] * y[k];
    if (__builtin_add_overflow(sum, products, &sum)) emulation::fail("a sum beyond 32 bits");
  }
}

}  // namespace emulated

inline uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(static_cast<const int8_t*>(pointer) - emulation::shared_memory) +
         emulation::shared_base;
}

inline void copy_async(uint32_t to, const void* from) {
  emulation::needs(80);
  if (to % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) emulation::fail("alignment");
  emulated::copies[emulation::running].add([=] { std::memcpy(emulated::at(to), from, 16); });
}
inline void copy_async_commit() { emulated::copies[emulation::running].commit(); }
template <int pending>
void copy_async_wait() {
  emulated::copies[emulation::running].wait(pending);
}

inline void load_matrices(uint32_t (&out)[4], uint32_t address) {
  const auto addresses = emulation::exchange(address);
  const int lane = emulation::running % 32;
  for (int m = 0; m < 4; ++m) {
    std::memcpy(&out[m], emulated::at(addresses[m * 8 + lane / 4]) + lane % 4 * 4, 4);
  }
}

inline void multiply(int32_t* sum, const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::needs(80);
  const auto all = emulation::exchange(std::array<uint32_t, 6>{a[0], a[1], a[2], a[3], b0, b1});
  const auto byte_of = [&](int lane, int number, int byte) {
    return static_cast<int8_t>(all[lane][number] >> byte * 8);
  };
  const int lane = emulation::running % 32;
  for (int i = 0; i < 4; ++i) {
    const int row = lane / 4 + (i >= 2 ? 8 : 0);
    const int column = lane % 4 * 2 + i % 2;
    int8_t x[32];
    int8_t y[32];
    for (int k = 0; k < 32; ++k) {
      const int part = k / 16;
      x[k] = byte_of(row % 8 * 4 + k % 16 / 4, part * 2 + row / 8, k % 4);
      y[k] = byte_of(column * 4 + k % 16 / 4, 4 + part, k % 4);
    }
    emulated::add_products(sum[i], x, y);
  }
}

inline uint32_t sum_of_warp(uint32_t value) {
  uint32_t sum = 0;
  for (const uint32_t v : emulation::exchange(value)) sum += v;
  return sum;
}
inline uint32_t largest_of_warp(uint32_t value) {
  const auto all = emulation::exchange(value);
  return *std::max_element(all.begin(), all.end());
}

inline void named_barrier(int number, int threads) {
  const unsigned first = emulation::running / threads * threads;
  emulation::meet(number, first, threads);
}

inline void barrier_init(uint32_t barrier, uint32_t arrivals) {
  emulation::needs(90, 90);
  emulated::barriers[barrier] = {arrivals, arrivals};
}
inline void barrier_init_fence() {}
inline void barrier_arrive(uint32_t barrier) {
  emulated::Barrier& b = emulated::barriers.at(barrier);
  if (b.left == 0) emulation::fail("too many arrivals");
  --b.left;
  b.settle();
}
inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  emulated::barriers.at(barrier).bytes += bytes;
  barrier_arrive(barrier);
}
inline void barrier_wait(uint32_t barrier, uint32_t parity) {
  emulated::Barrier& b = emulated::barriers.at(barrier);
  while ((b.phase & 1) == parity) {
    for (; !b.copies.empty(); b.copies.pop_front()) b.copies.front()();
    if ((b.phase & 1) == parity) emulation::leave();
  }
}
inline void bulk_copy(uint32_t to, const void* from, uint32_t bytes, uint32_t barrier) {
  if (to % 16 != 0 || bytes % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) {
    emulation::fail("alignment");
  }
  const auto copy = [=] {
    std::memcpy(emulated::at(to), from, bytes);
    emulated::Barrier& b = emulated::barriers.at(barrier);
    b.bytes -= bytes;
    b.settle();
  };
  emulation::late ? emulated::barriers.at(barrier).copies.push_back(copy) : copy();
}
template <int registers>
void take_registers() {}
template <int registers>
void give_registers() {}

template <int n>
void multiply(int32_t (&sum)[n], uint64_t a, uint64_t b, int adds) {
  emulation::needs(90, 90);
  int32_t* sums = sum;
  const int thread = emulation::running % 128;
  emulated::products[emulation::running].add([=] {
    int8_t x[2][32];
    for (int half = 0; half < 2; ++half) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + half * 8;
      emulated::operand(a, row, x[half]);
    }
    for (int i = 0; i < n; ++i) {
      const int column = i / 4 * 8 + thread % 4 * 2 + i % 2;
      int8_t y[32];
      emulated::operand(b, column, y);
      if (!adds) sums[i] = 0;
      emulated::add_products(sums[i], x[i % 4 / 2], y);
    }
  });
}
inline void wgmma_fence() {}
inline void wgmma_commit() { emulated::products[emulation::running].commit(); }
template <int pending>
void wgmma_wait() {
  emulated::products[emulation::running].wait(pending);
}
template <int n>
void pin(int32_t (&)[n]) {}

}  // namespace naign::cuda
