// The loop that fills rows with normal numbers, one for each instruction set; all give the same
// bits.
#pragma once

#include <cstdint>

#include "common/cpu_features.h"
#include "randn/randn.h"

namespace naign::cpu {

// Counters [begin, end) of the rows one after the other, groups() for each.
using RandnLoop = void (*)(const Randn& work, int64_t begin, int64_t end);

template <Isa>
void randn(const Randn& work, int64_t begin, int64_t end);
template <>
void randn<Isa::portable>(const Randn& work, int64_t begin, int64_t end);
template <>
void randn<Isa::avx2>(const Randn& work, int64_t begin, int64_t end);
template <>
void randn<Isa::avx512>(const Randn& work, int64_t begin, int64_t end);

}  // namespace naign::cpu
