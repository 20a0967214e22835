// Normal numbers as a torch operator.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include <optional>

#include "randn/binding.h"

namespace naign::glue {
namespace {

void normals(const Tensor& out, std::optional<Tensor> rows, int64_t first, int64_t seed,
             double scale) {
  cpu::normals(normals_inputs(out, rows, first, seed, scale).work, torch_threads());
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def("normals(Tensor(a!) out, Tensor? rows, int first, int seed, float scale) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) { m.impl("normals", TORCH_BOX(&naign::glue::normals)); }
