// From torch's stable ABI to the plain structs of the kernels.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "common/matrix.h"
#include "common/parallel.h"

namespace naign::glue {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline Dtype dtype_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::Half:
      return Dtype::float16;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    default:
      STD_TORCH_CHECK(false, name, ": expected float32, float16 or bfloat16");
  }
}

// A 2-D tensor, or the batches of a 3-D tensor. Asking torch for sizes and strides costs more than
// a small search: it is done once.
inline Batches batches_of(const Tensor& tensor, const char* name) {
  const int64_t dims = tensor.dim();
  STD_TORCH_CHECK(dims == 2 || dims == 3, name, ": expected 2 or 3 dimensions, got ", dims);
  const Matrix matrix{tensor.const_data_ptr(), dtype_of(tensor, name),  tensor.size(dims - 2),
                      tensor.size(dims - 1),   tensor.stride(dims - 2), tensor.stride(dims - 1)};
  return dims == 2 ? Batches{matrix, 1, 0} : Batches{matrix, tensor.size(0), tensor.stride(0)};
}

inline Matrix matrix_of(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == 2, name, ": expected 2 dimensions, got ", tensor.dim());
  return batches_of(tensor, name).first;
}

// A new contiguous tensor on the same device. Straight from the allocator: for a small search, the
// dispatcher would take longer than the search.
inline Tensor empty_like_device(const Tensor& like, const std::vector<int64_t>& sizes,
                                ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t elements = 1;
  for (size_t i = sizes.size(); i-- > 0; elements *= sizes[i]) strides[i] = elements;
  int32_t device_type = 0;
  int32_t device_index = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle made = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)), device_type,
      device_index, &made));
  return Tensor(made);
}

// The same, of the tensor's sizes and dtype.
inline Tensor empty_alike(const Tensor& tensor) {
  std::vector<int64_t> sizes(tensor.dim());
  for (size_t d = 0; d < sizes.size(); ++d) sizes[d] = tensor.size(static_cast<int64_t>(d));
  return empty_like_device(tensor, sizes, tensor.scalar_type());
}

// The tensor itself where it is contiguous, which costs no call of the dispatcher.
inline Tensor made_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// torch's own threads: torch.set_num_threads is obeyed.
inline Parallel torch_threads() {
  return {static_cast<int64_t>(torch::stable::get_num_threads()),
          [](int64_t tasks, const std::function<void(int64_t)>& task) {
            torch::stable::parallel_for(0, tasks, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) task(i);
            });
          }};
}

}  // namespace naign::glue
