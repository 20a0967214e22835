// A lower bound of distances in far fewer dimensions: the first stage of a prepared search.
//
// For any linear P with |P| <= 1 let F(v) = (P v, sqrt(|v|^2 - |P v|^2)). Then
// |F(x) - F(y)| <= |x - y|: docs/exactness.md, section 7. P comes from the principal axes of the
// data; it decides speed, never the answer.
#pragma once

#include <cstdint>
#include <vector>

#include "imle_knn/cpu/filter.h"

namespace naign::cpu {

// The data of a search in few dimensions.
struct Projection {
  PackedData axes;  // the rows of P, in 16 bits
  PackedData data;  // F of the data, in 8 bits
};

// True where this processor projects rows of this length.
bool can_project(int64_t columns);

// `packed` packs the data, `axes` are the rows of P before they are scaled down to |P| <= 1: best
// are orthonormal ones.
Projection project_data(const Matrix& data, const PackedData& packed, const Matrix& axes);

// Maps rows to F(s x - c), a tile at a time, and bounds the error of what it computed.
class Projector {
 public:
  // Centre and scale are those of `packed`.
  Projector(const PackedData& axes, const PackedData& packed);

  int64_t columns() const { return axes_.rows + 1; }
  int64_t tile_rows() const { return kernels_.tile_rows; }

  // Reads up to tile_rows() finite rows. values(r) then has columns() numbers within error(r) of
  // F; kind(r) is out_of_range where a row is too large to project.
  void project(const float* const* rows, int64_t count);
  const float* values(int64_t r) const { return values_.data() + r * columns(); }
  float error(int64_t r) const { return error_[r]; }
  RowKind kind(int64_t r) const { return kind_[r]; }

 private:
  void finish_row(int64_t r, const PackedRow& row);

  const PackedData& axes_;
  const PackedData& packed_;
  const Kernels& kernels_;
  Block block_;
  AlignedArray<float> scores_;
  AlignedArray<float> thresholds_;
  std::vector<float> values_;
  std::vector<float> error_;
  std::vector<RowKind> kind_;
};

}  // namespace naign::cpu
