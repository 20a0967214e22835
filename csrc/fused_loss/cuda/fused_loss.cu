// One pass over contiguous memory by one block for each piece of the sum.
//
// Most threads read values and write gradients, 16 bytes at a time, and leave the differences of a
// tile in shared memory. There the last warps add them up in float64 while the next tile is read
// into the other buffer: a thread for each lane of each term, so that every sum has the order that
// the header fixes. The chain of 4096 dependent additions of a piece takes less time than its bytes
// take, once two blocks share a multiprocessor.
//
// A group of several steps is one launch as well: a tile goes through all steps before the next one
// comes, so that tensors of several terms are read again from the caches.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <vector>

#include "common/launch.cuh"
#include "fused_loss/plan.h"

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
  char* gradient;  // nullptr where it is not wanted
  float* partial;  // the gradient's unfinished sum, of a tensor with terms in several steps
  Dtype dtype;
  bool begun;       // the sum has begun
  bool unfinished;  // the sum goes on: it is written to `partial`, unscaled, not to `gradient`
};

template <int terms>
struct Step {
  Tensor tensors[terms + 1];
  float slopes[terms];
};

// Of one group; what a launch can be given.
constexpr int most_steps = 48;

template <int terms, int room>
struct Arguments {
  Step<terms> steps[room];
  int count;
  bool aligned;
  int64_t elements;
  const float* scale;
  double* sums;  // [step][term][piece]
};
static_assert(sizeof(Arguments<1, most_steps>) <= 4096);

// A term's sums of pieces, and what becomes of them.
struct Row {
  const double* sums;
  int64_t pieces;
  double weight;
  double elements;
};

constexpr int most_rows = 48;

struct Rows {
  Row of[most_rows];
  int count;
  float* terms;
  double* running;  // the weighted sum of earlier rows, where there are any
  bool first;
  float* total;  // nullptr where more rows follow
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
  if (tensor.gradient == nullptr || tensor.unfinished) return;
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

// The gradient of the elements from `at` on, in place of their values; where a tensor has terms in
// other steps, it is added to their sum.
template <Access access, bool in_steps>
__device__ void settle(const Tensor& tensor, Quad gradient, int64_t at, int quad,
                       const float* scale, Words<words<access>>& result) {
  if (tensor.gradient == nullptr) return;
  if constexpr (in_steps) {
    auto* const partial = reinterpret_cast<float4*>(tensor.partial + at + quad * 4);
    if (tensor.begun) {
      const float4 sum = *partial;
      gradient = {sum.x + gradient.of[0], sum.y + gradient.of[1], sum.z + gradient.of[2],
                  sum.w + gradient.of[3]};
    }
    if (tensor.unfinished) {
      const float (&of)[4] = gradient.of;
      *partial = {of[0], of[1], of[2], of[3]};
      return;
    }
  }
  if (scale != nullptr) {
    const float factor = __ldg(scale);
#pragma unroll
    for (float& value : gradient.of) value *= factor;
  }
  narrow<access>(tensor, gradient, quad, result);
}

// The gradient of a step's first tensor, from differences that are in shared memory by then: it is
// seldom wanted, and registers are scarce.
template <bool absolute, int terms, int readers>
__device__ Quad first_gradient(const float (&slopes)[terms], const float* differences) {
  Quad gradient;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    gradient.of[i] = -derivative<absolute>(differences[i], slopes[0]);
    if constexpr (terms > 1) {
      gradient.of[i] -= derivative<absolute>(differences[row<readers> + i], slopes[1]);
    }
  }
  return gradient;
}

// Differences of one chunk; its values turn into gradients.
template <Access access, bool absolute, int terms, int readers, bool in_steps>
__device__ void work_on_chunk(const Step<terms>& step, const float* scale,
                              Words<words<access>> (&of)[terms + 1], int64_t at,
                              float* differences) {
  const Tensor(&tensors)[terms + 1] = step.tensors;
  const float (&slopes)[terms] = step.slopes;
#pragma unroll
  for (int quad = 0; quad < chunk<access> / 4; ++quad) {
    float* const to = differences + quad * 4;
    const Quad x = widen<access>(tensors[0], of[0], quad);
    const Quad a = widen<access>(tensors[1], of[1], quad);
    settle<access, in_steps>(tensors[1], term<absolute>(a, x, slopes[0], to), at, quad, scale,
                             of[1]);
    if constexpr (terms > 1) {
      const Quad b = widen<access>(tensors[2], of[2], quad);
      Quad of_b = term<absolute>(b, x, slopes[1], to + row<readers>);
      if constexpr (terms > 2) {
        const Quad c = widen<access>(tensors[3], of[3], quad);
        const Quad of_c = term<absolute>(c, b, slopes[2], to + 2 * row<readers>);
        settle<access, in_steps>(tensors[3], of_c, at, quad, scale, of[3]);
#pragma unroll
        for (int i = 0; i < 4; ++i) of_b.of[i] -= of_c.of[i];
      }
      settle<access, in_steps>(tensors[2], of_b, at, quad, scale, of[2]);
    }
    if (tensors[0].gradient != nullptr) {
      settle<access, in_steps>(tensors[0], first_gradient<absolute, terms, readers>(slopes, to), at,
                               quad, scale, of[0]);
    }
  }
#pragma unroll
  for (int t = 0; t <= terms; ++t) write<access>(tensors[t], at, of[t]);
}

// All reads of a tile are under way before the first is waited for.
template <Access access, bool absolute, int terms, int readers, bool in_steps>
__device__ void work_on_tile(const Step<terms>& step, const float* scale, int64_t begin,
                             float* differences) {
  constexpr int chunks = elements_a_reader / chunk<access>;
  Words<words<access>> of[chunks][terms + 1];
#pragma unroll
  for (int c = 0; c < chunks; ++c) {
    const int64_t at = begin + (c * readers + static_cast<int>(threadIdx.x)) * chunk<access>;
#pragma unroll
    for (int t = 0; t <= terms; ++t) of[c][t] = read<access>(step.tensors[t], at);
  }
#pragma unroll
  for (int c = 0; c < chunks; ++c) {
    const int offset = (c * readers + static_cast<int>(threadIdx.x)) * chunk<access>;
    work_on_chunk<access, absolute, terms, readers, in_steps>(step, scale, of[c], begin + offset,
                                                              differences + offset);
  }
}

template <Access access, bool in_steps>
__device__ void settle_element(const Tensor& tensor, float gradient, int64_t at,
                               const float* scale) {
  if (tensor.gradient == nullptr) return;
  if constexpr (in_steps) {
    if (tensor.begun) gradient = tensor.partial[at] + gradient;
    if (tensor.unfinished) {
      tensor.partial[at] = gradient;
      return;
    }
  }
  write_element<access>(tensor, at, scale == nullptr ? gradient : gradient * __ldg(scale));
}

// A tile that is not whole or not aligned. Elements from `end` on leave differences of zero, which
// add nothing to any sum.
template <Access access, bool absolute, int terms, int readers, bool in_steps>
__device__ void work_on_elements(const Step<terms>& step, const float* scale, int64_t begin,
                                 int64_t end, float* differences) {
  const Tensor(&tensors)[terms + 1] = step.tensors;
#pragma unroll 2
  for (int offset = static_cast<int>(threadIdx.x); offset < tile<readers>; offset += readers) {
    const int64_t at = begin + offset;
    const bool inside = at < end;
    float in[terms + 1];
    float out[terms + 1];
#pragma unroll
    for (int t = 0; t <= terms; ++t)
      in[t] = inside ? read_element<access, true>(tensors[t], at) : 0;
#pragma unroll
    for (int t = 0; t < terms; ++t) {
      const int other = LossStep::other(t);
      const float difference = in[t + 1] - in[other];
      differences[t * row<readers> + offset] = difference;
      out[t + 1] = derivative<absolute>(difference, step.slopes[t]);
      out[other] = t == 0 ? -out[1] : out[other] - out[t + 1];
    }
    if (!inside) continue;
#pragma unroll
    for (int t = 0; t <= terms; ++t)
      settle_element<access, in_steps>(tensors[t], out[t], at, scale);
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

// Every adder's sum of each step.
template <int room>
constexpr int sums_bytes = room == 1 ? 0 : room * warp * static_cast<int>(sizeof(double));

template <Access access, bool absolute, int terms, int readers, int room>
__global__ void __launch_bounds__(readers + adders(terms),
                                  (blocks_a_multiprocessor<access, terms, readers>))
    loss_of_piece(const __grid_constant__ Arguments<terms, room> arguments) {
  // Never started there.
  if (before_ampere && readers == many_readers) return;
  constexpr bool in_steps = room > 1;
  const int count = in_steps ? arguments.count : 1;
  const int64_t piece = blockIdx.x;
  const int64_t begin = piece * loss_piece;
  const int64_t end = min(begin + loss_piece, arguments.elements);
  const int tiles = static_cast<int>((end - begin + tile<readers> - 1) / tile<readers>);
  float* const buffers = reinterpret_cast<float*>(dynamic_shared_memory());
  const float* const scale = arguments.scale;
  // Threads beyond the last term repeat it.
  const int adder = static_cast<int>(threadIdx.x) - readers;
  const int added_term = min(adder / lanes, terms - 1);
  double sum = 0;
  double* const sums = reinterpret_cast<double*>(buffers + 2 * terms * row<readers>) + adder;
  if (in_steps && adder >= 0) {
    for (int s = 0; s < count; ++s) sums[s * warp] = 0;
  }
  for (int index = 0; index < tiles * count; ++index) {
    const int s = index % count;
    const Step<terms>& step = arguments.steps[s];
    float* const differences = buffers + index % 2 * (terms * row<readers>);
    const int64_t first = begin + static_cast<int64_t>(index / count) * tile<readers>;
    if (adder < 0) {
      if (first + tile<readers> <= end && (access != Access::mixed || arguments.aligned)) {
        work_on_tile<access, absolute, terms, readers, in_steps>(step, scale, first, differences);
      } else {
        work_on_elements<access, absolute, terms, readers, in_steps>(step, scale, first, end,
                                                                     differences);
      }
    }
    // Readers write this buffer again only after the next barrier, where adders are done with it.
    __syncthreads();
    if (adder >= 0) {
      const float* const from = differences + added_term * row<readers> + adder % lanes;
      if (in_steps) sum = sums[s * warp];
      sum = add_lane<absolute, readers>(sum, from);
      if (in_steps) sums[s * warp] = sum;
    }
  }
  if (adder < 0) return;
  for (int s = 0; s < count; ++s) {
    if (in_steps) sum = sums[s * warp];
    double total = 0;
#pragma unroll
    for (int lane = 0; lane < lanes; ++lane) {
      total += __shfl_sync(0xffffffffu, sum, lane, lanes);
    }
    if (adder % lanes == 0 && adder < terms * lanes) {
      arguments.sums[(s * terms + added_term) * static_cast<int64_t>(gridDim.x) + piece] = total;
    }
  }
}

// The pieces in order, by a warp: its lanes fetch the sums of 32 pieces at a time, two batches
// ahead, and all add them up alike.
__device__ double sum_of_pieces(const double* from, int64_t count) {
  const int lane = static_cast<int>(threadIdx.x) % warp;
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
  return sum;
}

constexpr int summing_warps = 4;

// A warp for each term, or for several.
__global__ void __launch_bounds__(summing_warps* warp)
    loss_of_pieces(const __grid_constant__ Rows rows) {
  auto* const means = reinterpret_cast<double*>(dynamic_shared_memory());
  for (int row = static_cast<int>(threadIdx.x) / warp; row < rows.count; row += summing_warps) {
    const Row& of = rows.of[row];
    const double mean = sum_of_pieces(of.sums, of.pieces) / of.elements;
    if (threadIdx.x % warp == 0) means[row] = mean;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  double total = rows.first ? 0 : *rows.running;
  for (int row = 0; row < rows.count; ++row) {
    total += rows.of[row].weight * means[row];
    rows.terms[row] = static_cast<float>(means[row]);
  }
  if (rows.total != nullptr) {
    *rows.total = static_cast<float>(total);
  } else {
    *rows.running = total;
  }
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

struct ScaledTensor {
  char* gradient;
  int64_t elements;
  Dtype dtype;
  bool aligned;
};

constexpr int most_scaled = 48;

struct ScaledTensors {
  ScaledTensor of[most_scaled];
  int count;
  const float* scale;
};

__global__ void __launch_bounds__(many_readers)
    scale_all(const __grid_constant__ ScaledTensors tensors) {
  const float scale = *tensors.scale;
  if (scale == 1) return;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * many_readers + threadIdx.x;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * many_readers;
#pragma unroll 1
  for (int t = 0; t < tensors.count; ++t) {
    const ScaledTensor& tensor = tensors.of[t];
    const int64_t in_vector = tensor.dtype == Dtype::float32 ? 4 : 8;
    const int64_t vectors = tensor.aligned ? tensor.elements / in_vector : 0;
    auto* const all = reinterpret_cast<uint4*>(tensor.gradient);
#pragma unroll 4
    for (int64_t i = first; i < vectors; i += stride) all[i] = scaled(all[i], tensor.dtype, scale);
    const Tensor own{tensor.gradient, tensor.gradient, nullptr, tensor.dtype, false, false};
    for (int64_t i = vectors * in_vector + first; i < tensor.elements; i += stride) {
      write_element<Access::mixed>(own, i, read_element<Access::mixed, false>(own, i) * scale);
    }
  }
}

bool at_multiple_of_16(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % sizeof(uint4) == 0;
}

// Where the kernels keep what they hand on, in bytes from the workspace's begin.
struct Workspace {
  std::vector<int64_t> sums;      // of each group
  std::vector<int64_t> partials;  // of each tensor; -1 where its gradient itself serves, or none is
  int64_t bytes = sizeof(double);  // the weighted sum comes first
};

Workspace workspace_of(const FusedLoss& loss, const std::vector<LossGroup>& groups) {
  Workspace found;
  found.partials.assign(loss.tensors.size(), -1);
  for (const LossGroup& group : groups) {
    found.sums.push_back(found.bytes);
    found.bytes +=
        static_cast<int64_t>(group.terms.size() * sizeof(double)) * loss_pieces(group.elements);
    for (const LossStep& step : group.steps) {
      for (int o = 0; o <= step.terms; ++o) {
        const LossOperand& operand = step.operands[o];
        const LossTensor& tensor = loss.tensors[operand.tensor];
        if (!operand.unfinished || operand.begun || tensor.gradient == nullptr ||
            tensor.dtype == Dtype::float32) {
          continue;
        }
        found.bytes = (found.bytes + 15) / 16 * 16;
        found.partials[operand.tensor] = found.bytes;
        found.bytes += tensor.elements * static_cast<int64_t>(sizeof(float));
      }
    }
  }
  return found;
}

// What the launches of a loss have in common.
struct Launches {
  const FusedLoss& loss;
  Workspace workspace;
  char* memory;
  cudaStream_t stream;

  Tensor tensor_of(const LossOperand& operand) const {
    const LossTensor& tensor = loss.tensors[operand.tensor];
    Tensor found{static_cast<const char*>(tensor.values),
                 static_cast<char*>(tensor.gradient),
                 nullptr,
                 tensor.dtype,
                 operand.begun,
                 operand.unfinished};
    if (operand.begun || operand.unfinished) {
      const int64_t offset = workspace.partials[operand.tensor];
      found.partial = static_cast<float*>(offset < 0 ? tensor.gradient : memory + offset);
    }
    return found;
  }

  double* sums_of(size_t group) const {
    return reinterpret_cast<double*>(memory + workspace.sums[group]);
  }
};

template <int terms, int room>
Access access_of(const Arguments<terms, room>& arguments) {
  if (!arguments.aligned || room > 1) return Access::mixed;
  const Tensor(&tensors)[terms + 1] = arguments.steps[0].tensors;
  const Dtype dtype = tensors[0].dtype;
  for (const Tensor& tensor : tensors) {
    if (tensor.dtype != dtype) return Access::mixed;
  }
  if (dtype == Dtype::float32) return Access::float32;
  return dtype == Dtype::bfloat16 ? Access::bfloat16 : Access::float16;
}

template <int terms, int room>
using Kernel = void (*)(const Arguments<terms, room>);

template <Access access, int terms, int room, int readers = many_readers>
Kernel<terms, room> kernel_of(bool absolute) {
  return absolute ? loss_of_piece<access, true, terms, readers, room>
                  : loss_of_piece<access, false, terms, readers, room>;
}

// A group of several steps has no kernels for tensors of one type.
template <int terms, int room>
Kernel<terms, room> kernel_of(Access access, bool absolute) {
  if constexpr (room == 1) {
    switch (access) {
      case Access::float32:
        return kernel_of<Access::float32, terms, room>(absolute);
      case Access::bfloat16:
        return kernel_of<Access::bfloat16, terms, room>(absolute);
      case Access::float16:
        return kernel_of<Access::float16, terms, room>(absolute);
      default:
        break;
    }
  }
  return kernel_of<Access::mixed, terms, room>(absolute);
}

// How the pieces are summed: a kernel, and what it is started with.
template <int terms, int room>
struct Launch {
  Kernel<terms, room> kernel;
  int threads;
  int shared_bytes;

  // For the current device.
  static Launch of(Access access, bool absolute) {
    int device = 0;
    int most_bytes = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (most_bytes < shared_bytes_of<many_readers>(loss_step_terms)) {
      return {kernel_of<Access::mixed, terms, room, few_readers>(absolute),
              few_readers + adders(terms), shared_bytes_of<few_readers>(terms) + sums_bytes<room>};
    }
    return {kernel_of<terms, room>(access, absolute), many_readers + adders(terms),
            shared_bytes_of<many_readers>(terms) + sums_bytes<room>};
  }
};

// Steps from `begin` on of a group, as many as one launch takes.
template <int terms, int room>
cudaError_t launch_steps(const Launches& launches, const LossGroup& group, size_t begin,
                         double* sums) {
  Arguments<terms, room> arguments{};
  arguments.count = static_cast<int>(std::min<size_t>(room, group.steps.size() - begin));
  arguments.aligned = true;
  for (int s = 0; s < arguments.count; ++s) {
    const LossStep& from = group.steps[begin + s];
    Step<terms>& step = arguments.steps[s];
    for (int t = 0; t < terms; ++t) step.slopes[t] = launches.loss.slope(from.term[t]);
    for (int t = 0; t <= terms; ++t) {
      const Tensor& tensor = step.tensors[t] = launches.tensor_of(from.operands[t]);
      arguments.aligned &= at_multiple_of_16(tensor.values) && at_multiple_of_16(tensor.gradient) &&
                           at_multiple_of_16(tensor.partial);
    }
  }
  arguments.elements = group.elements;
  arguments.scale = launches.loss.scale;
  arguments.sums = sums;
  const auto launch = Launch<terms, room>::of(access_of(arguments), launches.loss.absolute);
  const cudaError_t allowed =
      cudaFuncSetAttribute(reinterpret_cast<const void*>(launch.kernel),
                           cudaFuncAttributeMaxDynamicSharedMemorySize, launch.shared_bytes);
  if (allowed != cudaSuccess) return allowed;
  return start(launch.kernel, static_cast<unsigned>(loss_pieces(group.elements)), launch.threads,
               launch.shared_bytes, launches.stream, arguments);
}

cudaError_t launch_group(const Launches& launches, const LossGroup& group, double* sums) {
  if (group.elements == 0) return cudaSuccess;
  if (group.steps.size() == 1) {
    const int terms = group.steps[0].terms;
    if (terms == 1) return launch_steps<1, 1>(launches, group, 0, sums);
    return terms == 2 ? launch_steps<2, 1>(launches, group, 0, sums)
                      : launch_steps<3, 1>(launches, group, 0, sums);
  }
  for (size_t begin = 0; begin < group.steps.size(); begin += most_steps) {
    double* const own = sums + static_cast<int64_t>(begin) * loss_pieces(group.elements);
    const cudaError_t status = launch_steps<1, most_steps>(launches, group, begin, own);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

// A row for each term, in order.
std::vector<Row> rows_of(const Launches& launches, const std::vector<LossGroup>& groups) {
  std::vector<Row> rows(launches.loss.terms.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    const LossGroup& group = groups[g];
    const int64_t pieces = loss_pieces(group.elements);
    const double* sums = launches.sums_of(g);
    for (const LossStep& step : group.steps) {
      for (int t = 0; t < step.terms; ++t, sums += pieces) {
        rows[step.term[t]] = {sums, pieces, launches.loss.terms[step.term[t]].weight,
                              static_cast<double>(std::max<int64_t>(1, group.elements))};
      }
    }
  }
  return rows;
}

cudaError_t launch_rows(const std::vector<Row>& all, float* total, float* terms, double* running,
                        cudaStream_t stream) {
  for (size_t begin = 0; begin < all.size(); begin += most_rows) {
    Rows rows{};
    rows.count = static_cast<int>(std::min<size_t>(most_rows, all.size() - begin));
    std::copy_n(all.begin() + static_cast<int64_t>(begin), rows.count, rows.of);
    rows.terms = terms + begin;
    rows.running = running;
    rows.first = begin == 0;
    rows.total = begin + most_rows < all.size() ? nullptr : total;
    const cudaError_t status =
        start(loss_of_pieces, 1, summing_warps * warp, rows.count * sizeof(double), stream, rows);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

// As many blocks as keep every multiprocessor of a large device busy.
constexpr int64_t most_scaling_blocks = 512;

cudaError_t launch_scaling(const ScaledTensors& tensors, cudaStream_t stream) {
  int64_t elements = 0;
  for (int t = 0; t < tensors.count; ++t) elements = std::max(elements, tensors.of[t].elements);
  if (elements == 0) return cudaSuccess;
  const int64_t blocks =
      std::min((elements + tile<many_readers> - 1) / tile<many_readers>, most_scaling_blocks);
  return start(scale_all, static_cast<unsigned>(blocks), many_readers, 0, stream, tensors);
}

}  // namespace

int64_t fused_loss_workspace_bytes(const FusedLoss& loss) {
  return workspace_of(loss, loss_groups(loss)).bytes;
}

int fused_loss(const FusedLoss& loss, float* total, float* terms, void* workspace,
               CUstream_st* stream) {
  const std::vector<LossGroup> groups = loss_groups(loss);
  const Launches launches{loss, workspace_of(loss, groups), static_cast<char*>(workspace), stream};
  for (size_t g = 0; g < groups.size(); ++g) {
    const cudaError_t status = launch_group(launches, groups[g], launches.sums_of(g));
    if (status != cudaSuccess) return status;
  }
  return launch_rows(rows_of(launches, groups), total, terms, static_cast<double*>(workspace),
                     stream);
}

int scale_gradients(const std::vector<LossTensor>& tensors, const float* scale,
                    CUstream_st* stream) {
  ScaledTensors some{};
  some.scale = scale;
  for (const LossTensor& tensor : tensors) {
    some.of[some.count++] = {static_cast<char*>(tensor.gradient), tensor.elements, tensor.dtype,
                             at_multiple_of_16(tensor.gradient)};
    if (some.count < most_scaled && &tensor != &tensors.back()) continue;
    const cudaError_t status = launch_scaling(some, stream);
    if (status != cudaSuccess) return status;
    some.count = 0;
  }
  return cudaSuccess;
}

}  // namespace naign::cuda
