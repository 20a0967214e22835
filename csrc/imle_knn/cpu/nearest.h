// The running k nearest of a data row.
#pragma once

#include <atomic>
#include <cstdint>

#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// Keeps the k smallest (distance, index) of a row. Other threads may read distances meanwhile.
inline void insert(const Neighbours& result, int64_t row, double distance, int64_t index) {
  double* distances = result.distances + row * result.k;
  int64_t* indices = result.indices + row * result.k;
  const auto before = [&](int64_t position) {
    return distances[position] < distance ||
           (distances[position] == distance && indices[position] >= 0 && indices[position] < index);
  };
  int64_t position = result.k;
  while (position > 0 && !before(position - 1)) --position;
  if (position == result.k) return;
  for (int64_t i = result.k - 1; i > position; --i) {
    std::atomic_ref(distances[i]).store(distances[i - 1], std::memory_order_relaxed);
    indices[i] = indices[i - 1];
  }
  std::atomic_ref(distances[position]).store(distance, std::memory_order_relaxed);
  indices[position] = index;
}

}  // namespace naign::cpu
