// One pass over contiguous memory by one block for each piece of the sum.
//
// Most threads read values and write gradients, 16 bytes at a time, and leave the differences of a
// tile in shared memory. There the last warps add them up in float64 while the next tile is read
// into the other buffer: a thread for each lane of each term, so that every sum has the order that
// the header fixes. The chain of 4096 dependent additions of a piece takes less time than its bytes
// take, once two blocks share a multiprocessor.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "common/launch.cuh"
#include "fused_loss/fused_loss.h"

namespace naign::cuda {
namespace {

constexpr int warp = 32;
constexpr int lanes = static_cast<int>(loss_lanes);
// Threads of a block that read. Devices before Ampere have room for the few only, in shared memory
// and in threads.
constexpr int many_readers = 512;
constexpr int few_readers = 256;
constexpr int elements_a_reader = 8;

template <int readers>
constexpr int tile = readers * elements_a_reader;
static_assert(loss_piece % tile<many_readers> == 0 && tile<few_readers> % lanes == 0);

// Differences of one term and tile. The gap puts the lanes of two terms on different banks.
template <int readers>
constexpr int row = tile<readers> + lanes;

// Two tiles of every term.
template <int readers>
constexpr int shared_bytes_of(int terms) {
  return 2 * terms * row<readers> * static_cast<int>(sizeof(float));
}

// float32, bfloat16, float16: all tensors are, and lie at multiples of 16 bytes. mixed: they
// differ, or some do not lie so.
enum class Access { float32, bfloat16, float16, mixed };

// Neighbouring elements that a thread reads at once, and the words they arrive in.
template <Access access>
constexpr int chunk = access == Access::float32 ? 4 : 8;
template <Access access>
constexpr int words = access == Access::mixed ? 8 : 4;

struct Tensor {
  const char* values;
  char* gradient;
  Dtype dtype;
};

struct Arguments {
  Tensor tensors[4];  // data, reconstruction, matched, projected
  bool aligned;
  float slopes[3];
  int64_t elements;
  double* sums;  // [term][piece]
};

struct Outputs {
  float* total;
  float* terms;
  double weights[3];
  double elements;
};

template <int count>
struct Words {
  uint32_t of[count];
};

struct Quad {
  float of[4];
};

template <Access access>
__device__ Dtype dtype_of(const Tensor& tensor) {
  if constexpr (access == Access::float32) return Dtype::float32;
  if constexpr (access == Access::bfloat16) return Dtype::bfloat16;
  if constexpr (access == Access::float16) return Dtype::float16;
  return tensor.dtype;
}

// Bytes from a tensor's begin to its element `at`.
template <Access access>
__device__ int64_t offset_of(const Tensor& tensor, int64_t at) {
  return dtype_of<access>(tensor) == Dtype::float32 ? at * 4 : at * 2;
}

__device__ void put(uint4 vector, uint32_t* to) {
  to[0] = vector.x;
  to[1] = vector.y;
  to[2] = vector.z;
  to[3] = vector.w;
}

__device__ uint4 take(const uint32_t* from) { return {from[0], from[1], from[2], from[3]}; }

template <Access access>
__device__ Words<words<access>> read(const Tensor& tensor, int64_t at) {
  Words<words<access>> result{};
  const auto* from = reinterpret_cast<const uint4*>(tensor.values + offset_of<access>(tensor, at));
  if constexpr (access != Access::mixed) {
    put(__ldcs(from), result.of);
  } else {
    put(__ldg(from), result.of);
    if (tensor.dtype == Dtype::float32) put(__ldg(from + 1), result.of + 4);
  }
  return result;
}

template <Access access>
__device__ void write(const Tensor& tensor, int64_t at, const Words<words<access>>& gradient) {
  auto* to = reinterpret_cast<uint4*>(tensor.gradient + offset_of<access>(tensor, at));
  to[0] = take(gradient.of);
  if constexpr (access == Access::mixed) {
    if (tensor.dtype == Dtype::float32) to[1] = take(gradient.of + 4);
  }
}

__device__ float2 widen_halves(uint32_t pair) {
  return {__half2float(__ushort_as_half(static_cast<uint16_t>(pair))),
          __half2float(__ushort_as_half(static_cast<uint16_t>(pair >> 16)))};
}

__device__ float2 widen_bfloats(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

__device__ uint32_t narrow_halves(float a, float b) {
  return __half_as_ushort(__float2half_rn(a)) |
         static_cast<uint32_t>(__half_as_ushort(__float2half_rn(b))) << 16;
}

__device__ uint32_t narrow_bfloats(float a, float b) {
  return __bfloat16_as_ushort(__float2bfloat16_rn(a)) |
         static_cast<uint32_t>(__bfloat16_as_ushort(__float2bfloat16_rn(b))) << 16;
}

// Elements 4 * quad and following of a chunk.
template <Access access>
__device__ Quad widen(const Tensor& tensor, const Words<words<access>>& read, int quad) {
  const Dtype dtype = dtype_of<access>(tensor);
  if (dtype == Dtype::float32) {
    const uint32_t* const from = read.of + (quad * 4) % words<access>;
    return {__uint_as_float(from[0]), __uint_as_float(from[1]), __uint_as_float(from[2]),
            __uint_as_float(from[3])};
  }
  const uint32_t* const from = read.of + (quad * 2) % words<access>;
  const bool brief = dtype == Dtype::bfloat16;
  const float2 low = brief ? widen_bfloats(from[0]) : widen_halves(from[0]);
  const float2 high = brief ? widen_bfloats(from[1]) : widen_halves(from[1]);
  return {low.x, low.y, high.x, high.y};
}

template <Access access>
__device__ void narrow(const Tensor& tensor, const Quad& values, int quad,
                       Words<words<access>>& result) {
  const Dtype dtype = dtype_of<access>(tensor);
  const float (&of)[4] = values.of;
  if (dtype == Dtype::float32) {
    uint32_t* const to = result.of + (quad * 4) % words<access>;
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i] = __float_as_uint(of[i]);
    return;
  }
  uint32_t* const to = result.of + (quad * 2) % words<access>;
  const bool brief = dtype == Dtype::bfloat16;
  to[0] = brief ? narrow_bfloats(of[0], of[1]) : narrow_halves(of[0], of[1]);
  to[1] = brief ? narrow_bfloats(of[2], of[3]) : narrow_halves(of[2], of[3]);
}

// `constant`: the kernel writes no such element, so that reads may overtake its writes.
template <Access access, bool constant>
__device__ float read_element(const Tensor& tensor, int64_t at) {
  const auto fetch = [](const auto* from) { return constant ? __ldg(from) : *from; };
  const Dtype dtype = dtype_of<access>(tensor);
  if (dtype == Dtype::float32) return fetch(reinterpret_cast<const float*>(tensor.values) + at);
  const uint32_t bits = fetch(reinterpret_cast<const uint16_t*>(tensor.values) + at);
  return dtype == Dtype::bfloat16 ? widen_bfloats(bits).x : widen_halves(bits).x;
}

template <Access access>
__device__ void write_element(const Tensor& tensor, int64_t at, float gradient) {
  const Dtype dtype = dtype_of<access>(tensor);
  if (dtype == Dtype::float32) {
    reinterpret_cast<float*>(tensor.gradient)[at] = gradient;
    return;
  }
  const uint32_t bits =
      dtype == Dtype::bfloat16 ? narrow_bfloats(gradient, 0) : narrow_halves(gradient, 0);
  reinterpret_cast<uint16_t*>(tensor.gradient)[at] = static_cast<uint16_t>(bits);
}

// slope * sign(difference), NaN where the difference is NaN; slope * difference for the square.
template <bool absolute>
__device__ float derivative(float difference, float slope) {
  if constexpr (absolute) {
    const float sign = difference > 0 ? 1.0f : difference < 0 ? -1.0f : 0.0f;
    return difference == difference ? slope * sign : difference;
  } else {
    return slope * difference;
  }
}

// Derivatives of one term; its differences go to shared memory.
template <bool absolute>
__device__ Quad term(const Quad& a, const Quad& b, float slope, float* differences) {
  Quad difference;
  Quad derivatives;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    difference.of[i] = a.of[i] - b.of[i];
    derivatives.of[i] = derivative<absolute>(difference.of[i], slope);
  }
  const float (&of)[4] = difference.of;
  *reinterpret_cast<float4*>(differences) = {of[0], of[1], of[2], of[3]};
  return derivatives;
}

// Gradients and differences of one chunk.
template <Access access, bool absolute, int terms, int readers>
__device__ void work_on_chunk(const Arguments& arguments,
                              const Words<words<access>> (&in)[terms + 1], int64_t at,
                              float* differences) {
  const Tensor(&tensors)[4] = arguments.tensors;
  const float (&slopes)[3] = arguments.slopes;
  Words<words<access>> out[terms];
#pragma unroll
  for (int quad = 0; quad < chunk<access> / 4; ++quad) {
    float* const to = differences + quad * 4;
    const Quad x = widen<access>(tensors[0], in[0], quad);
    const Quad r = widen<access>(tensors[1], in[1], quad);
    narrow<access>(tensors[1], term<absolute>(r, x, slopes[0], to), quad, out[0]);
    if constexpr (terms > 1) {
      const Quad m = widen<access>(tensors[2], in[2], quad);
      Quad gradient = term<absolute>(m, x, slopes[1], to + row<readers>);
      if constexpr (terms > 2) {
        const Quad q = widen<access>(tensors[3], in[3], quad);
        const Quad outer = term<absolute>(q, m, slopes[2], to + 2 * row<readers>);
        narrow<access>(tensors[3], outer, quad, out[2]);
#pragma unroll
        for (int i = 0; i < 4; ++i) gradient.of[i] -= outer.of[i];
      }
      narrow<access>(tensors[2], gradient, quad, out[1]);
    }
  }
#pragma unroll
  for (int t = 0; t < terms; ++t) write<access>(tensors[t + 1], at, out[t]);
}

// All reads of a tile are under way before the first is waited for.
template <Access access, bool absolute, int terms, int readers>
__device__ void work_on_tile(const Arguments& arguments, int64_t begin, float* differences) {
  constexpr int chunks = elements_a_reader / chunk<access>;
  Words<words<access>> in[chunks][terms + 1];
#pragma unroll
  for (int c = 0; c < chunks; ++c) {
    const int64_t at = begin + (c * readers + static_cast<int>(threadIdx.x)) * chunk<access>;
#pragma unroll
    for (int t = 0; t <= terms; ++t) in[c][t] = read<access>(arguments.tensors[t], at);
  }
#pragma unroll
  for (int c = 0; c < chunks; ++c) {
    const int offset = (c * readers + static_cast<int>(threadIdx.x)) * chunk<access>;
    work_on_chunk<access, absolute, terms, readers>(arguments, in[c], begin + offset,
                                                    differences + offset);
  }
}

// A tile that is not whole or not aligned. Elements from `end` on leave differences of zero, which
// add nothing to any sum.
template <Access access, bool absolute, int terms, int readers>
__device__ void work_on_elements(const Arguments& arguments, int64_t begin, int64_t end,
                                 float* differences) {
  const Tensor(&tensors)[4] = arguments.tensors;
  const float (&slopes)[3] = arguments.slopes;
#pragma unroll 2
  for (int offset = static_cast<int>(threadIdx.x); offset < tile<readers>; offset += readers) {
    const int64_t at = begin + offset;
    const bool inside = at < end;
    float in[terms + 1];
    float out[terms];
#pragma unroll
    for (int t = 0; t <= terms; ++t)
      in[t] = inside ? read_element<access, true>(tensors[t], at) : 0;
#pragma unroll
    for (int t = 0; t < terms; ++t) {
      const float difference = in[t + 1] - in[t == 2 ? 2 : 0];
      differences[t * row<readers> + offset] = difference;
      out[t] = derivative<absolute>(difference, slopes[t]);
    }
    if constexpr (terms > 2) out[1] -= out[2];
    if (!inside) continue;
#pragma unroll
    for (int t = 0; t < terms; ++t) write_element<access>(tensors[t + 1], at, out[t]);
  }
}

// A tile's differences of one lane, in order. The square of a float32 number is exact in float64:
// fusing it with the addition changes nothing.
template <bool absolute, int readers>
__device__ double add_lane(double sum, const float* differences) {
  constexpr int batch = 8;
  constexpr int steps = tile<readers> / lanes;
  static_assert(steps % batch == 0);
  float next[batch];
#pragma unroll
  for (int i = 0; i < batch; ++i) next[i] = differences[i * lanes];
#pragma unroll 1
  for (int step = batch; step <= steps; step += batch) {
    double wide[batch];
#pragma unroll
    for (int i = 0; i < batch; ++i) wide[i] = static_cast<double>(next[i]);
    if (step < steps) {
#pragma unroll
      for (int i = 0; i < batch; ++i) next[i] = differences[(step + i) * lanes];
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      sum = absolute ? sum + fabs(wide[i]) : __fma_rn(wide[i], wide[i], sum);
    }
  }
  return sum;
}

// One warp adds up two terms.
constexpr int adders(int terms) { return (terms + 1) / 2 * warp; }

// Of a multiprocessor, at least.
constexpr int most_threads = before_ampere ? 1024 : 1536;

// Two, where half of the registers suffices.
template <Access access, int terms, int readers>
constexpr int blocks_a_multiprocessor =
    (access == Access::mixed && terms == 3 && readers == many_readers) ||
            2 * (readers + adders(terms)) > most_threads
        ? 1
        : 2;

template <Access access, bool absolute, int terms, int readers>
__global__ void __launch_bounds__(readers + adders(terms),
                                  (blocks_a_multiprocessor<access, terms, readers>))
    loss_of_piece(const __grid_constant__ Arguments arguments) {
  // Never started there.
  if (before_ampere && readers == many_readers) return;
  const int64_t piece = blockIdx.x;
  const int64_t begin = piece * loss_piece;
  const int64_t end = min(begin + loss_piece, arguments.elements);
  const int tiles = static_cast<int>((end - begin + tile<readers> - 1) / tile<readers>);
  float* const buffers = reinterpret_cast<float*>(dynamic_shared_memory());
  // Threads beyond the last term repeat it.
  const int adder = static_cast<int>(threadIdx.x) - readers;
  const int added_term = min(adder / lanes, terms - 1);
  double sum = 0;
  for (int index = 0; index < tiles; ++index) {
    float* const differences = buffers + index % 2 * (terms * row<readers>);
    const int64_t first = begin + static_cast<int64_t>(index) * tile<readers>;
    if (adder < 0) {
      if (first + tile<readers> <= end && (access != Access::mixed || arguments.aligned)) {
        work_on_tile<access, absolute, terms, readers>(arguments, first, differences);
      } else {
        work_on_elements<access, absolute, terms, readers>(arguments, first, end, differences);
      }
    }
    // Readers write this buffer again only after the next barrier, where adders are done with it.
    __syncthreads();
    if (adder >= 0) {
      const float* const from = differences + added_term * row<readers> + adder % lanes;
      sum = add_lane<absolute, readers>(sum, from);
    }
  }
  if (adder < 0) return;
  double total = 0;
#pragma unroll
  for (int lane = 0; lane < lanes; ++lane) {
    total += __shfl_sync(0xffffffffu, sum, lane, lanes);
  }
  if (adder % lanes == 0 && adder < terms * lanes) {
    arguments.sums[added_term * static_cast<int64_t>(gridDim.x) + piece] = total;
  }
}

// The pieces in order, a warp for each term: its lanes fetch the sums of 32 pieces at a time, two
// batches ahead, and all add them up alike.
__global__ void __launch_bounds__(3 * warp)
    loss_of_pieces(const double* sums, int64_t pieces, int terms, const Outputs outputs) {
  const int term = static_cast<int>(threadIdx.x) / warp;
  const int lane = static_cast<int>(threadIdx.x) % warp;
  const double* const from = sums + term * pieces;
  const int64_t count = term < terms ? pieces : 0;
  const auto fetch = [&](int64_t at) { return at < count ? from[at] : 0.0; };
  double now = fetch(lane);
  double next = fetch(warp + lane);
  double sum = 0;
  for (int64_t first = 0; first < count; first += warp) {
    const double ahead = fetch(first + 2 * warp + lane);
#pragma unroll
    for (int i = 0; i < warp; ++i) sum += __shfl_sync(0xffffffffu, now, i);
    now = next;
    next = ahead;
  }
  auto* const means = reinterpret_cast<double*>(dynamic_shared_memory());
  if (lane == 0) means[term] = sum / outputs.elements;
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = 0;
#pragma unroll
  for (int t = 0; t < 3; ++t) {
    total += outputs.weights[t] * means[t];
    outputs.terms[t] = static_cast<float>(means[t]);
  }
  *outputs.total = static_cast<float>(total);
}

// A vector of 16 bytes, times the scale.
__device__ uint4 scaled(uint4 vector, Dtype dtype, float scale) {
  uint32_t of[4];
  put(vector, of);
#pragma unroll
  for (uint32_t& word : of) {
    if (dtype == Dtype::float32) {
      word = __float_as_uint(__uint_as_float(word) * scale);
    } else if (dtype == Dtype::bfloat16) {
      const float2 pair = widen_bfloats(word);
      word = narrow_bfloats(pair.x * scale, pair.y * scale);
    } else {
      const float2 pair = widen_halves(word);
      word = narrow_halves(pair.x * scale, pair.y * scale);
    }
  }
  return take(of);
}

struct Gradients {
  Tensor tensors[3];
  bool aligned;
  int64_t elements;
  const float* scale;
};

__global__ void __launch_bounds__(many_readers)
    scale_all(const __grid_constant__ Gradients gradients) {
  const float scale = *gradients.scale;
  if (scale == 1) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * many_readers + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * many_readers;
#pragma unroll 1
  for (const Tensor& tensor : gradients.tensors) {
    if (tensor.gradient == nullptr) continue;
    const int64_t in_vector = tensor.dtype == Dtype::float32 ? 4 : 8;
    const int64_t vectors = gradients.aligned ? gradients.elements / in_vector : 0;
    auto* const all = reinterpret_cast<uint4*>(tensor.gradient);
#pragma unroll 4
    for (int64_t i = first; i < vectors; i += stride) all[i] = scaled(all[i], tensor.dtype, scale);
    const Tensor own{tensor.gradient, tensor.gradient, tensor.dtype};
    for (int64_t i = vectors * in_vector + first; i < gradients.elements; i += stride) {
      write_element<Access::mixed>(own, i, read_element<Access::mixed, false>(own, i) * scale);
    }
  }
}

using Kernel = void (*)(const Arguments);

template <Access access, bool absolute, int readers>
Kernel kernel_of(int terms) {
  if (terms == 1) return loss_of_piece<access, absolute, 1, readers>;
  return terms == 2 ? loss_of_piece<access, absolute, 2, readers>
                    : loss_of_piece<access, absolute, 3, readers>;
}

template <Access access, int readers = many_readers>
Kernel kernel_of(int terms, bool absolute) {
  return absolute ? kernel_of<access, true, readers>(terms)
                  : kernel_of<access, false, readers>(terms);
}

Kernel kernel_of(Access access, int terms, bool absolute) {
  switch (access) {
    case Access::float32:
      return kernel_of<Access::float32>(terms, absolute);
    case Access::bfloat16:
      return kernel_of<Access::bfloat16>(terms, absolute);
    case Access::float16:
      return kernel_of<Access::float16>(terms, absolute);
    default:
      return kernel_of<Access::mixed>(terms, absolute);
  }
}

// How the pieces are summed: a kernel, and what it is started with.
struct Launch {
  Kernel kernel;
  int threads;
  int shared_bytes;

  // For the current device.
  static Launch of(Access access, int terms, bool absolute) {
    int device = 0;
    int most_bytes = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (most_bytes < shared_bytes_of<many_readers>(3)) {
      return {kernel_of<Access::mixed, few_readers>(terms, absolute), few_readers + adders(terms),
              shared_bytes_of<few_readers>(terms)};
    }
    return {kernel_of(access, terms, absolute), many_readers + adders(terms),
            shared_bytes_of<many_readers>(terms)};
  }
};

bool at_multiple_of_16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % sizeof(uint4) == 0;
}

Tensor tensor_of(const LossTensor& tensor) {
  return {static_cast<const char*>(tensor.values), static_cast<char*>(tensor.gradient),
          tensor.dtype};
}

bool all_aligned(const Tensor (&tensors)[4]) {
  for (const Tensor& tensor : tensors) {
    if (!at_multiple_of_16(tensor.values) || !at_multiple_of_16(tensor.gradient)) return false;
  }
  return true;
}

Access access_of(const Arguments& arguments, int terms) {
  if (!arguments.aligned) return Access::mixed;
  const Dtype dtype = arguments.tensors[0].dtype;
  for (int t = 1; t <= terms; ++t) {
    if (arguments.tensors[t].dtype != dtype) return Access::mixed;
  }
  if (dtype == Dtype::float32) return Access::float32;
  return dtype == Dtype::bfloat16 ? Access::bfloat16 : Access::float16;
}

cudaError_t launch_pieces(const FusedLoss& loss, int terms, double* sums, cudaStream_t stream) {
  Arguments arguments{{tensor_of(loss.data), tensor_of(loss.reconstruction),
                       tensor_of(loss.matched), tensor_of(loss.projected)},
                      false,
                      {loss.slope(0), loss.slope(1), loss.slope(2)},
                      loss.elements,
                      sums};
  arguments.aligned = all_aligned(arguments.tensors);
  const Launch launch = Launch::of(access_of(arguments, terms), terms, loss.absolute);
  const cudaError_t allowed =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(launch.kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, launch.shared_bytes);
  if (allowed != cudaSuccess) return allowed;
  return start(launch.kernel, static_cast<unsigned>(loss.pieces()), launch.threads,
               launch.shared_bytes, stream, arguments);
}

// As many blocks as keep every multiprocessor of a large device busy.
constexpr int64_t most_scaling_blocks = 512;

}  // namespace

int fused_loss(const FusedLoss& loss, float* total, float* terms, void* workspace,
               CUstream_st* stream) {
  const int count = loss.projected.values != nullptr ? 3 : loss.matched.values != nullptr ? 2 : 1;
  auto* const sums = static_cast<double*>(workspace);
  if (loss.elements > 0) {
    const cudaError_t status = launch_pieces(loss, count, sums, stream);
    if (status != cudaSuccess) return status;
  }
  const Outputs outputs{total,
                        terms,
                        {loss.weights[0], loss.weights[1], loss.weights[2]},
                        loss.elements > 0 ? static_cast<double>(loss.elements) : 1};
  return start(loss_of_pieces, 1, 3 * warp, 3 * sizeof(double), stream, sums, loss.pieces(), count,
               outputs);
}

int scale_gradients(const LossTensor (&gradients)[3], int64_t elements, const float* scale,
                    CUstream_st* stream) {
  if (elements == 0) return cudaSuccess;
  Gradients all{{tensor_of(gradients[0]), tensor_of(gradients[1]), tensor_of(gradients[2])},
                true,
                elements,
                scale};
  for (const Tensor& tensor : all.tensors) all.aligned &= at_multiple_of_16(tensor.gradient);
  const int64_t blocks =
      std::min((elements + tile<many_readers> - 1) / tile<many_readers>, most_scaling_blocks);
  return start(scale_all, static_cast<unsigned>(blocks), many_readers, 0, stream, all);
}

}  // namespace naign::cuda
