// The tensors of the normal numbers and the plain struct that its kernels see of them.
#pragma once

#include <optional>

#include "common/tensors.h"
#include "randn/randn.h"

namespace naign::glue {

struct RandnInputs {
  std::optional<Tensor> rows;
  Randn work;
};

inline RandnInputs randn_inputs(const Tensor& out, const std::optional<Tensor>& rows, int64_t first,
                                int64_t seed, double scale) {
  STD_TORCH_CHECK(out.dim() == 2 && out.is_contiguous() && out.scalar_type() == ScalarType::Float,
                  "out: expected a contiguous float32 matrix");
  RandnInputs inputs{{},
                     {static_cast<float*>(out.mutable_data_ptr()), nullptr, first, out.size(0),
                      out.size(1), static_cast<uint64_t>(seed), static_cast<float>(scale)}};
  if (rows.has_value()) {
    STD_TORCH_CHECK(
        rows->dim() == 1 && rows->size(0) == out.size(0) && rows->scalar_type() == ScalarType::Long,
        "rows: expected int64, one for each row of out");
    STD_TORCH_CHECK(
        rows->is_cuda() == out.is_cuda() && rows->get_device_index() == out.get_device_index(),
        "rows: expected out's device");
    inputs.rows = made_contiguous(*rows);
    inputs.work.rows = static_cast<const int64_t*>(inputs.rows->const_data_ptr());
  }
  return inputs;
}

}  // namespace naign::glue
