// The data side of a search, prepared once: scaled, centred, interleaved into panels.
#pragma once

#include <cstdint>

#include "common/aligned.h"
#include "common/cpu_features.h"
#include "common/matrix.h"
#include "common/parallel.h"
#include "imle_knn/bounds.h"
#include "imle_knn/cpu/kernels.h"

namespace naign::cpu {

struct PackedData {
  int64_t rows;
  int64_t columns;
  Isa isa;
  Filter filter;
  int64_t units;  // four-byte units a row
  int64_t lanes;
  int64_t panels;
  float scale = 1;                  // a power of two
  AlignedArray<float> centre;       // of scaled rows
  AlignedArray<Query> queries;      // [panel][lane]
  AlignedArray<float> lane_scales;  // integer filters: twice the scale of each query
  AlignedArray<char> values;        // [panel][unit][lane]

  static constexpr int64_t unit_bytes = 4;

  // Room for data of this size under the current instruction set; nothing is packed yet.
  PackedData(int64_t rows, int64_t columns, Filter filter);

  int64_t panel_bytes() const { return units * lanes * unit_bytes; }
  const char* panel(int64_t index) const { return values.get() + index * panel_bytes(); }
};

bool has_filter(Filter filter);

// The cheapest filter that this processor has for rows of this length, and the next one.
Filter first_filter(int64_t columns);
Filter tighter_filter(Filter filter);

// Packs data for any number of searches. `sample` is a pool from which centre and scale are taken;
// they decide speed, never the answer.
PackedData pack_data(const Matrix& data, const Matrix& sample, Filter filter,
                     const Parallel& parallel);

// Packs data as `like` did, for another filter: the same centre and scale.
PackedData pack_again(const Matrix& data, const PackedData& like, Filter filter);

// Packs data as it is: no centre, no scale.
PackedData pack_plain(const Matrix& data, Filter filter);

// False where a pool lies so far from the centre chosen by pack_data, measured in its own spread,
// that packing again would pay.
bool packing_fits(const PackedData& packed, const Matrix& sample);

}  // namespace naign::cpu
