// What this processor can do, and which instruction set the kernels use.
#pragma once

#include <string>
#include <type_traits>

namespace naign::cpu {

enum class Isa { portable, avx2, avx512 };

struct Features {
  bool avx2;         // AVX2, FMA
  bool avx512;       // AVX-512 F, BW, DQ, VL
  bool avx512_vnni;  // 8-bit and 16-bit dot products
  bool avx512_bf16;
};

const Features& features();

// The set in use: NAIGN_ISA or force_isa where given, else the best this processor has.
Isa isa();
const char* isa_name(Isa isa);

// choose(constant) with the set in use as a constant. Only sets that were compiled are named.
template <class Choose>
decltype(auto) with_isa(Isa set, const Choose& choose) {
  switch (set) {
#if defined(__x86_64__)
    case Isa::avx512:
      return choose(std::integral_constant<Isa, Isa::avx512>());
    case Isa::avx2:
      return choose(std::integral_constant<Isa, Isa::avx2>());
#endif
    default:
      return choose(std::integral_constant<Isa, Isa::portable>());
  }
}

// Throws std::invalid_argument for an unknown name or a set this processor lacks; "" undoes it.
void force_isa(const std::string& name);

}  // namespace naign::cpu
