// The loop that fills rows with normal numbers, one for each instruction set; all give the same
// bits.
#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "randn/randn.h"

namespace naign::cpu {

// Counters [begin, end) of the rows one after the other, groups() for each.
using NormalsLoop = void (*)(const Normals& work, int64_t begin, int64_t end);

template <Isa>
void normals(const Normals& work, int64_t begin, int64_t end);
template <>
void normals<Isa::portable>(const Normals& work, int64_t begin, int64_t end);
template <>
void normals<Isa::avx2>(const Normals& work, int64_t begin, int64_t end);
template <>
void normals<Isa::avx512>(const Normals& work, int64_t begin, int64_t end);

}  // namespace naign::cpu
