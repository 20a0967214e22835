// The search of a pool that arrives in pieces, and all that is prepared for its data: running
// neighbours, packing, filter and projection. What to do next is decided here.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "imle_knn/cpu/packed_data.h"
#include "imle_knn/cpu/projection.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// The data stay the caller's; every call gets the same. Threads take turns.
class StreamingSearch {
 public:
  StreamingSearch(const Matrix& data, int64_t k, double reject_below);

  // Forgets the pool, keeps what was prepared for the data.
  void reset();

  // Takes in more pool rows, first_index, first_index + 1, ...
  void update(const Matrix& pool, int64_t first_index, const Parallel& parallel);

  // Distances as float32, and indices, (rows, k) each.
  void result(float* distances, int64_t* indices);

  // The running neighbours (rows, k), to be read from and written to by others.
  void get_running(double* distances, int64_t* indices);
  void set_running(const double* distances, const int64_t* indices);

  const Matrix& data() const { return data_; }
  int64_t k() const { return k_; }
  bool projects();

 private:
  Neighbours neighbours();
  void update_packed(const PoolRange& pool, const Parallel& parallel);
  bool needs_packing(const Matrix& pool) const;
  bool projection_would_pay() const;
  void project(const Parallel& parallel);

  const Matrix data_;
  const int64_t k_;
  const double reject_below_;
  std::mutex mutex_;
  std::vector<double> distances_;
  std::vector<int64_t> indices_;
  bool fresh_ = true;      // no pool row since the last reset
  int64_t rows_seen_ = 0;  // over all pools
  std::unique_ptr<PackedData> packed_;
  std::vector<float> axes_;  // empty until a projection pays
  std::unique_ptr<Projection> projection_;
  bool projection_failed_ = false;
};

}  // namespace naign::cpu
