// Batch normalisation over several processes as torch operators.
#define TORCH_TARGET_VERSION 0x020b000000000000

#include "batch_norm/batch_norm.h"

#include <optional>
#include <tuple>
#include <vector>

#include "common/tensors.h"

namespace naign::glue {
namespace {

template <class Number>
constexpr ScalarType type_of = sizeof(Number) == 4 ? ScalarType::Float : ScalarType::Double;

template <class Number = float>
const Number* numbers(const Tensor& tensor, int64_t count, const char* name) {
  STD_TORCH_CHECK(tensor.scalar_type() == type_of<Number> && tensor.is_contiguous(), name,
                  ": expected contiguous ", sizeof(Number) == 4 ? "float32" : "float64");
  STD_TORCH_CHECK(tensor.numel() == count, name, ": expected ", count, " numbers, got ",
                  tensor.numel());
  return static_cast<const Number*>(tensor.const_data_ptr());
}

const float* numbers(const std::optional<Tensor>& tensor, int64_t count, const char* name) {
  return tensor.has_value() ? numbers(*tensor, count, name) : nullptr;
}

template <class Number = float>
Number* writable(const Tensor& tensor) {
  return static_cast<Number*>(tensor.mutable_data_ptr());
}

ChannelShape shape_of(const Tensor& x) {
  STD_TORCH_CHECK(x.dim() >= 2, "x: expected (B, C, ...), got ", x.dim(), " dimensions");
  int64_t inner = 1;
  for (int64_t d = 2; d < x.dim(); ++d) inner *= x.size(d);
  return {x.size(0), x.size(1), inner};
}

Tensor batch_norm_sums(const Tensor& x, std::optional<Tensor> gradient, const Tensor& centre) {
  const ChannelShape shape = shape_of(x);
  const int64_t elements = shape.outer * shape.channels * shape.inner;
  Tensor sums = empty_like_device(x, {2 * shape.channels + 1}, ScalarType::Double);
  cpu::batch_norm_sums({shape, numbers(x, elements, "x"), numbers(gradient, elements, "gradient"),
                        numbers(centre, shape.channels, "centre"), writable<double>(sums)},
                       torch_threads());
  return sums;
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_forward(
    const Tensor& x, const Tensor& sums, const Tensor& running_mean, const Tensor& running_var,
    std::optional<Tensor> weight, std::optional<Tensor> bias, double momentum, double eps) {
  const ChannelShape shape = shape_of(x);
  const auto [outer, channels, inner] = shape;
  numbers(running_mean, channels, "running_mean");
  numbers(running_var, channels, "running_var");
  Tensor out = empty_alike(x);
  Tensor mean = empty_like_device(x, {channels}, ScalarType::Double);
  Tensor scale = empty_like_device(x, {channels}, ScalarType::Double);
  cpu::batch_norm_forward(
      {shape, numbers(x, outer * channels * inner, "x"),
       numbers<double>(sums, 2 * channels + 1, "sums"), numbers(weight, channels, "weight"),
       numbers(bias, channels, "bias"), momentum, eps, writable(running_mean),
       writable(running_var), writable(out), writable<double>(mean), writable<double>(scale)},
      torch_threads());
  return {out, mean, scale};
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_backward(const Tensor& x, const Tensor& gradient,
                                                       const Tensor& own_sums, const Tensor& sums,
                                                       const Tensor& mean, const Tensor& scale,
                                                       std::optional<Tensor> weight) {
  const ChannelShape shape = shape_of(x);
  const auto [outer, channels, inner] = shape;
  const int64_t elements = outer * channels * inner;
  Tensor for_x = empty_alike(x);
  Tensor for_weight = empty_like_device(x, {channels}, ScalarType::Float);
  Tensor for_bias = empty_like_device(x, {channels}, ScalarType::Float);
  cpu::batch_norm_backward(
      {shape, numbers(x, elements, "x"), numbers(gradient, elements, "gradient"),
       numbers<double>(own_sums, 2 * channels + 1, "own_sums"),
       numbers<double>(sums, 2 * channels + 1, "sums"), numbers<double>(mean, channels, "mean"),
       numbers<double>(scale, channels, "scale"), numbers(weight, channels, "weight"),
       writable(for_x), writable(for_weight), writable(for_bias)},
      torch_threads());
  return {for_x, for_weight, for_bias};
}

}  // namespace
}  // namespace naign::glue

STABLE_TORCH_LIBRARY_FRAGMENT(naign, m) {
  m.def("batch_norm_sums(Tensor x, Tensor? gradient, Tensor centre) -> Tensor");
  m.def(
      "batch_norm_forward(Tensor x, Tensor sums, Tensor(a!) running_mean, Tensor(b!) running_var, "
      "Tensor? weight, Tensor? bias, float momentum, float eps) -> (Tensor, Tensor, Tensor)");
  m.def(
      "batch_norm_backward(Tensor x, Tensor gradient, Tensor own_sums, Tensor sums, Tensor mean, "
      "Tensor scale, Tensor? weight) -> (Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(naign, CPU, m) {
  m.impl("batch_norm_sums", TORCH_BOX(&naign::glue::batch_norm_sums));
  m.impl("batch_norm_forward", TORCH_BOX(&naign::glue::batch_norm_forward));
  m.impl("batch_norm_backward", TORCH_BOX(&naign::glue::batch_norm_backward));
}
