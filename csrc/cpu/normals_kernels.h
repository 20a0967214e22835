// The loop that fills rows with normal numbers, one for each instruction set; all give the same
// bits.
#pragma once

#include <cstdint>

#include "naign/normals.h"

namespace naign::cpu {

// Counters [begin, end) of the rows one after the other, groups() for each.
using NormalsLoop = void (*)(const Normals& work, int64_t begin, int64_t end);

void normals_portable(const Normals& work, int64_t begin, int64_t end);
#if defined(__x86_64__)
void normals_avx2(const Normals& work, int64_t begin, int64_t end);
void normals_avx512(const Normals& work, int64_t begin, int64_t end);
#endif

}  // namespace naign::cpu
