// Conversions of float16 as CUDA names them.
#pragma once
#include <bit>
#include <cstdint>

using __half = _Float16;
inline __half __ushort_as_half(uint16_t bits) { return std::bit_cast<__half>(bits); }
inline uint16_t __half_as_ushort(__half value) { return std::bit_cast<uint16_t>(value); }
inline float __half2float(__half value) { return static_cast<float>(value); }
inline __half __float2half_rn(float value) { return static_cast<__half>(value); }
