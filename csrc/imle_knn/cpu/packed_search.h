// Search by packing: a low-precision filter with a rigorous bound discards nearly all pairs, the
// distances of the rest are computed as the contract defines them. docs/exactness.md proves it.
#pragma once

#include <memory>

#include "imle_knn/cpu/packed_data.h"
#include "imle_knn/cpu/projection.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// What a search found out for the next one.
struct Outcome {
  std::unique_ptr<PackedData> tighter;  // a packing that is faster from now on, if any
  bool projection_pays = true;          // false if it was given up
};

// Takes more pool rows into the running result. `packed` and `projection` (or nullptr) are made of
// the same data under the current instruction set.
Outcome search_packed(const Matrix& data, const PackedData& packed, const Projection* projection,
                      const PoolRange& pool, const Neighbours& result, const Parallel& parallel);

}  // namespace naign::cpu
