#include "common/cpu_features.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace naign::cpu {
namespace {

Features detect() {
  Features found{};
#if defined(__x86_64__)
  __builtin_cpu_init();
  found.avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  found.avx512 = found.avx2 && __builtin_cpu_supports("avx512f") &&
                 __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vl");
  found.avx512_vnni = found.avx512 && __builtin_cpu_supports("avx512vnni");
  found.avx512_bf16 = found.avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return found;
}

Isa best() {
  if (features().avx512) return Isa::avx512;
  return features().avx2 ? Isa::avx2 : Isa::portable;
}

Isa by_name(const std::string& name) {
  for (const Isa candidate : {Isa::portable, Isa::avx2, Isa::avx512}) {
    if (name != isa_name(candidate)) continue;
    if (candidate > best()) {
      throw std::invalid_argument("NAIGN_ISA: this processor has no " + name +
                                  "; the best it has is " + isa_name(best()));
    }
    return candidate;
  }
  throw std::invalid_argument("NAIGN_ISA: expected avx512, avx2 or portable, got '" + name + "'");
}

Isa from_environment() {
  const char* name = std::getenv("NAIGN_ISA");
  return name == nullptr || *name == '\0' ? best() : by_name(name);
}

std::atomic<Isa>& chosen() {
  static std::atomic<Isa> value{from_environment()};
  return value;
}

}  // namespace

const Features& features() {
  static const Features found = detect();
  return found;
}

Isa isa() { return chosen().load(std::memory_order_relaxed); }

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::avx512:
      return "avx512";
    case Isa::avx2:
      return "avx2";
    default:
      return "portable";
  }
}

void force_isa(const std::string& name) { chosen() = name.empty() ? best() : by_name(name); }

}  // namespace naign::cpu
