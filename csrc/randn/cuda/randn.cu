// A thread for each counter, four neighbouring columns of a row.
#include <cuda_runtime.h>

#include <algorithm>

#include "common/host_device.h"
#include "common/launch.cuh"
#include "randn/randn.h"

namespace naign::cuda {
namespace {

using Floats = float;
using Words = uint32_t;
using Ints = int32_t;
using LongWords = uint64_t;

__device__ float to_floats(int32_t number) { return static_cast<float>(number); }
__device__ uint32_t as_words(float value) { return __float_as_uint(value); }
__device__ uint32_t as_words(int32_t number) { return static_cast<uint32_t>(number); }
__device__ int32_t as_ints(uint32_t word) { return static_cast<int32_t>(word); }
__device__ float as_floats(uint32_t word) { return __uint_as_float(word); }
__device__ float square_root(float value) { return sqrtf(value); }
__device__ uint64_t product(uint64_t a, uint32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) * b;
}

#include "randn/arithmetic.inc"

constexpr int threads = 256;
constexpr int64_t blocks_a_multiprocessor = 8;

struct Arguments {
  Randn work;
  int64_t groups;
  int64_t counters;
  int64_t rows_a_step;  // of all threads together, and the groups beyond whole rows
  int64_t groups_a_step;
};

struct Row {
  uint64_t low, high;
  uint32_t key_low, key_high;
  float scale;

  __device__ Philox words(int64_t group) const {
    Philox state[1] = {{{low, high, static_cast<uint64_t>(group), 0}}};
    philox(state, key_low, key_high);
    return state[0];
  }
  __device__ float2 pair(uint64_t radius, uint64_t angle) const {
    const NormalPair z = normal_pair(static_cast<uint32_t>(radius), static_cast<uint32_t>(angle));
    return {scale * z.of[0], scale * z.of[1]};
  }
};

// The last counter of a row may have fewer than four columns.
__device__ void write_some(const Row& row, int64_t group, int64_t columns, bool kept, float* to) {
  const Philox words = row.words(group);
  const float2 ab = row.pair(words.of[0], words.of[1]);
  to[0] = kept ? ab.x : 0;
  if (columns > 1) to[1] = kept ? ab.y : 0;
  if (columns <= 2) return;
  const float2 cd = row.pair(words.of[2], words.of[3]);
  to[2] = kept ? cd.x : 0;
  if (columns > 3) to[3] = kept ? cd.y : 0;
}

__device__ void write_four(const Row& row, int64_t group, bool kept, float* to) {
  const Philox words = row.words(group);
  const float2 ab = row.pair(words.of[0], words.of[1]);
  const float2 cd = row.pair(words.of[2], words.of[3]);
  *reinterpret_cast<float4*>(to) = kept ? float4{ab.x, ab.y, cd.x, cd.y} : float4{0, 0, 0, 0};
}

// aligned: every counter has four columns, at a multiple of 16 bytes.
template <bool aligned>
__global__ void __launch_bounds__(threads) fill_randn(const Arguments arguments) {
  const Randn& work = arguments.work;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * threads;
  int64_t counter = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  int64_t index = counter / arguments.groups;
  int64_t group = counter % arguments.groups;
  for (; counter < arguments.counters; counter += stride) {
    const int64_t number = work.rows == nullptr ? work.first + index : __ldg(work.rows + index);
    const Row row{static_cast<uint64_t>(number), static_cast<uint64_t>(number) >> 32,
                  static_cast<uint32_t>(work.seed), static_cast<uint32_t>(work.seed >> 32),
                  work.scale};
    float* const to = work.out + index * work.columns + 4 * group;
    if constexpr (aligned) {
      write_four(row, group, number >= 0, to);
    } else {
      write_some(row, group, work.columns - 4 * group, number >= 0, to);
    }
    index += arguments.rows_a_step;
    group += arguments.groups_a_step;
    if (group >= arguments.groups) {
      group -= arguments.groups;
      ++index;
    }
  }
}

}  // namespace

int randn(const Randn& work, CUstream_st* stream) {
  const int64_t groups = work.groups();
  const int64_t counters = work.count * groups;
  if (counters == 0) return cudaSuccess;
  int device = 0;
  int multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const int64_t blocks =
      std::min((counters + threads - 1) / threads, multiprocessors * blocks_a_multiprocessor);
  const int64_t stride = blocks * threads;
  const Arguments arguments{work, groups, counters, stride / groups, stride % groups};
  const bool aligned =
      work.columns % 4 == 0 && reinterpret_cast<uintptr_t>(work.out) % sizeof(float4) == 0;
  return start(aligned ? fill_randn<true> : fill_randn<false>, static_cast<unsigned>(blocks),
               threads, 0, stream, arguments);
}

}  // namespace naign::cuda
