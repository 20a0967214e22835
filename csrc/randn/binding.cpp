// Normal numbers as a torch operator.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>

#include "randn/binding.h"

namespace naign::glue {
namespace {

void randn(const Tensor& out, std::optional<Tensor> rows, int64_t first, int64_t seed,
           double scale) {
  cpu::randn(randn_inputs(out, rows, first, seed, scale).work, torch_threads());
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def("randn(Tensor(a!) out, Tensor? rows, int first, int seed, float scale) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) { m.impl("randn", TORCH_BOX(&naign::glue::randn)); }
