// The running k nearest of a data row in shared memory, kept by one warp.
#pragma once

#include <cstdint>

#include "imle_knn/cuda/kernels.cuh"

namespace naign::cuda {

struct SharedNearest {
  double distances[largest_k];
  int64_t indices[largest_k];

  __device__ void clear(int k, int thread, int threads) {
    for (int i = thread; i < k; i += threads) {
      distances[i] = infinity;
      indices[i] = -1;
    }
  }
  // Past the first-level cache: another block may have written them.
  __device__ void load(const Neighbours& from, int64_t row, int thread, int threads) {
    for (int64_t i = thread; i < from.k; i += threads) {
      distances[i] = __ldcg(from.distances + row * from.k + i);
      indices[i] = __ldcg(from.indices + row * from.k + i);
    }
  }
  __device__ void store(const Neighbours& to, int64_t row, int thread, int threads) const {
    for (int64_t i = thread; i < to.k; i += threads) {
      to.distances[row * to.k + i] = distances[i];
      to.indices[row * to.k + i] = indices[i];
    }
  }

  // Called by all lanes of one warp with the same arguments. A row that is there already stays
  // once: a tighter filter may find it again.
  __device__ void insert(int k, double distance, int64_t index, int lane) {
    if (distance > distances[k - 1]) return;
    int position = 0;
    bool there = false;
    for (int first = 0; first < k; first += 32) {
      const int i = first + lane;
      const bool before =
          i < k && (distances[i] < distance ||
                    (distances[i] == distance && indices[i] >= 0 && indices[i] < index));
      position += __popc(__ballot_sync(~0u, before));
      there |= __any_sync(~0u, i < k && indices[i] == index);
    }
    if (there || position == k) return;
    constexpr int share = static_cast<int>(largest_k) / 32;
    double moved_distance[share];
    int64_t moved_index[share];
#pragma unroll
    for (int s = 0; s < share; ++s) {
      const int i = s * 32 + lane;
      const bool shifts = i > position && i < k;
      moved_distance[s] = shifts ? distances[i - 1] : distance;
      moved_index[s] = shifts ? indices[i - 1] : index;
    }
    __syncwarp();
#pragma unroll
    for (int s = 0; s < share; ++s) {
      const int i = s * 32 + lane;
      if (i >= position && i < k) {
        distances[i] = moved_distance[s];
        indices[i] = moved_index[s];
      }
    }
    __syncwarp();
  }
};

__device__ inline void lower_bound_to(double* bound, double value) {
  // Non-negative doubles are ordered as their bits are.
  atomicMin(reinterpret_cast<unsigned long long*>(bound),
            static_cast<unsigned long long>(__double_as_longlong(value)));
}

constexpr double largest_distance = 0x1.fffffffffffffp1023;

// False for pairs with a NaN or Inf in them, and rejected ones.
__device__ inline bool admissible(double distance, double reject_below) {
  return distance <= largest_distance && distance >= reject_below;
}

}  // namespace naign::cuda
