// The data side of a search, prepared once: scaled, centred, interleaved into panels.
#pragma once

#include <cstdint>
#include <utility>

#include "common/cpu_features.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"
#include "imle_knn/imle_knn.h"

namespace naign::cpu {

// The layout of the caller's buffer: this header, then centre, queries, scales and panels.
struct PackedData {
  int64_t rows;
  int64_t columns;
  int64_t units;  // four-byte units a row
  int64_t panels;
  int64_t lanes;
  Isa isa;
  Filter filter;
  float scale;  // a power of two

  const float* centre() const { return at<float>(centre_at()); }
  const Query* queries() const { return at<Query>(queries_at()); }
  // Integer filters: twice the value of one unit of each query.
  const float* lane_scales() const { return at<float>(scales_at()); }
  const char* panel(int64_t index) const {
    return at<char>(panels_at()) + index * units * lanes * unit_bytes;
  }
  float* centre() { return const_cast<float*>(std::as_const(*this).centre()); }
  Query* queries() { return const_cast<Query*>(std::as_const(*this).queries()); }
  float* lane_scales() { return const_cast<float*>(std::as_const(*this).lane_scales()); }
  char* panel(int64_t index) { return const_cast<char*>(std::as_const(*this).panel(index)); }

  // The size of the whole buffer.
  size_t bytes() const { return panels_at() + panels * units * lanes * unit_bytes; }

  static constexpr int64_t unit_bytes = 4;

 private:
  static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
  size_t centre_at() const { return aligned(sizeof(PackedData)); }
  size_t queries_at() const { return centre_at() + aligned(columns * sizeof(float)); }
  size_t scales_at() const { return queries_at() + aligned(panels * lanes * sizeof(Query)); }
  size_t panels_at() const { return scales_at() + aligned(panels * lanes * sizeof(float)); }
  template <class T>
  const T* at(size_t offset) const {
    return reinterpret_cast<const T*>(reinterpret_cast<const char*>(this) + offset);
  }
};

// The header that pack_data would write for data of this size under the current instruction set.
PackedData packed_layout(int64_t rows, int64_t columns, Filter filter);

// Packs data as `like` did, for another filter: the same centre and scale.
void pack_again(const Matrix& data, const PackedData& like, PackedData& packed);

// Packs data as it is: no centre, no scale.
void pack_plain(const Matrix& data, PackedData& packed);

}  // namespace naign::cpu
