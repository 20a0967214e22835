// The Python module naign_ext._C: everything that is not a tensor. Importing it registers the
// operators of this folder with torch. No torch header here: torch bundles another pybind11.
#include <pybind11/pybind11.h>

#include "common/cpu_features.h"
#include "imle_knn/cuda/plan.h"
#include "imle_knn/imle_knn.h"

namespace py = pybind11;

namespace {

py::dict build_info() {
  py::dict info;
  info["compiler"] = __VERSION__;
  info["cplusplus"] = __cplusplus;
  info["torch"] = NAIGN_BUILD_TORCH;
  info["cuda"] = static_cast<bool>(NAIGN_BUILD_CUDA);
  info["cuda_reason"] = NAIGN_BUILD_CUDA_REASON;
  info["largest_k_on_cuda"] = naign::cuda::largest_k;
  return info;
}

py::dict cpu_features() {
  const auto& found = naign::cpu::features();
  py::dict features;
  features["avx2"] = found.avx2;
  features["avx512"] = found.avx512;
  features["avx512_vnni"] = found.avx512_vnni;
  features["avx512_bf16"] = found.avx512_bf16;
  return features;
}

}  // namespace

PYBIND11_MODULE(_C, module) {
  module.doc() = "Compiled operators of naign.";
  module.def("build_info", &build_info, "Compiler, torch version and CUDA state of this build.");
  module.def("cpu_features", &cpu_features,
             "Instruction sets of this processor that have kernels.");
  module.def(
      "isa", [] { return naign::cpu::isa_name(naign::cpu::isa()); },
      "The instruction set in use: avx512, avx2 or portable.");
  module.def(
      "force_isa", &naign::cpu::force_isa, py::arg("name"),
      "Use this instruction set from now on; '' for the best. ValueError if it is not there.");
  module.def("force_method", &naign::cpu::force_method, py::arg("name"),
             "Search this way from now on, where it applies: packed, projected, tree, differences, "
             "lane_sums or lanes; '' for the fastest. The answer is the same.");
}
