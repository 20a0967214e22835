// Rows to integers: centre, scale, quantise, and measure what that costs. A team of threads takes a
// row; up to 32 of its values stay in a thread's registers between the two passes.
#include "common/launch.cuh"
#include "imle_knn/cuda/kernels.cuh"
#include "imle_knn/cuda/ptx.cuh"
#include "imle_knn/cuda/rows.cuh"

namespace naign::cuda {
namespace {

constexpr int block_threads = 256;
constexpr int cached_fours = 4;

template <int team>
struct Team {
  static constexpr int warps = team / 32;
  int64_t* scratch;  // shared, one word a warp of the team
  int number;        // of the block's teams

  __device__ void sync() const { named_barrier(1 + number, team); }

  template <class T, class Combine>
  __device__ T all(T value, const Combine& combine) const {
#pragma unroll
    for (int width = 16; width > 0; width /= 2) {
      value = combine(value, __shfl_xor_sync(~0u, value, width));
    }
    if constexpr (team > 32) {
      T* slots = reinterpret_cast<T*>(scratch);
      sync();
      if (threadIdx.x % 32 == 0) slots[threadIdx.x / 32 % warps] = value;
      sync();
      value = slots[threadIdx.x % warps];
#pragma unroll
      for (int width = warps / 2; width > 0; width /= 2) {
        value = combine(value, __shfl_xor_sync(~0u, value, width));
      }
    }
    return value;
  }
  template <class T>
  __device__ T sum(T value) const {
    return all(value, [](T a, T b) { return a + b; });
  }
  __device__ uint32_t largest(uint32_t value) const {
    return all(value, [](uint32_t a, uint32_t b) { return a < b ? b : a; });
  }
};

__device__ float total(const float4& v) { return (v.x + v.y) + (v.z + v.w); }

__device__ void add_square(float4& sum, const float4& v) {
  sum.x += v.x * v.x;
  sum.y += v.y * v.y;
  sum.z += v.z * v.z;
  sum.w += v.w * v.w;
}

__device__ uint32_t magnitude(float value) { return __float_as_uint(value) & 0x7fffffffu; }

__device__ uint32_t largest_magnitude(const float4& v) {
  return max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w)));
}

// Never true of NaN.
__device__ bool equal_fours(const float4& a, const float4& b) {
  return a.x == b.x && a.y == b.y && a.z == b.z && a.w == b.w;
}

__device__ uint32_t bytes_of_four(const int (&v)[4]) {
  return (v[0] & 0xff) | (v[1] & 0xff) << 8 | (v[2] & 0xff) << 16 |
         static_cast<uint32_t>(v[3] & 0xff) << 24;
}

// Where a row's packed values go.
struct Target {
  int8_t* values;
  int64_t row;
  int64_t slabs;  // a digit
  int digits;

  __device__ void store(int64_t k, int digit, uint32_t four) const {
    const int64_t at = packed_offset(row, k + digit * slabs * slab_bytes, slabs * digits);
    *reinterpret_cast<uint32_t*>(values + at) = four;
  }
  __device__ void store(int64_t k, const int (&integers)[4]) const {
    if (digits == 1) return store(k, 0, bytes_of_four(integers));
    const int high[4]{high_digit(integers[0]), high_digit(integers[1]), high_digit(integers[2]),
                      high_digit(integers[3])};
    const int low[4]{low_digit(integers[0]), low_digit(integers[1]), low_digit(integers[2]),
                     low_digit(integers[3])};
    store(k, 0, bytes_of_four(high));
    store(k, 1, bytes_of_four(low));
  }
};

constexpr PackedRowInfo excluded_row{0, 0, 0, 0, RowKind::excluded};

template <int team>
class RowPacker {
 public:
  __device__ RowPacker(const PackProblem& problem, const Team<team>& threads, int64_t at)
      : p_(problem),
        threads_(threads),
        thread_(static_cast<int>(threadIdx.x) % team),
        columns_(problem.rows.columns),
        scale_(problem.frame->scale),
        target_{problem.values, at, problem.slabs, problem.digits} {}

  // The row's integers are written; returns what they stand for. Where `skips`, a row equal to the
  // one before it takes no part.
  template <class T>
  __device__ PackedRowInfo pack(const Row<T>& row, const Row<T>& before, bool skips, bool aligned) {
    // Most rows differ in their first numbers already, which arrive with the others.
    const bool begins_alike = skips && equal_fours(four_of(row, 0, columns_, aligned),
                                                   four_of(before, 0, columns_, aligned));
    float4 kept[cached_fours];
    float4 squares{0, 0, 0, 0};
    uint32_t raw = 0;
    uint32_t largest = 0;
    for_each_four([&](int64_t k, int slot) {
      const float4 values = four_of(row, k, columns_, aligned);
      const float4 value = centred_four(values, k);
      if (slot < cached_fours) keep(kept, slot, value);
      raw = max(raw, largest_magnitude(values));
      largest = max(largest, largest_magnitude(value));
      add_square(squares, value);
    });
    if (begins_alike && equal(row, before, aligned)) {
      pack_nothing();
      return excluded_row;
    }
    RowSums sums{};
    sums.finite = threads_.largest(raw) < 0x7f800000u;
    sums.extent.largest = __uint_as_float(threads_.largest(largest));
    sums.extent.norm_bound = norm_bound_of(threads_.sum(total(squares)), columns_);
    const bool packs = sums.finite && !sums.extent.packs_as_zeros();
    sums.scale = sums.finite ? integer_scale(sums.extent, levels_of(p_.digits)) : 1;
    const float inverse = packs ? 1 / sums.scale : 0;
    float4 errors{0, 0, 0, 0};
    int64_t squared = 0;
    for_each_four([&](int64_t k, int slot) {
      const float4 value = slot < cached_fours
                               ? kept_at(kept, slot)
                               : centred_four(four_of(row, k, columns_, aligned), k);
      const Quantised q[4]{
          quantise(value.x, sums.scale, inverse), quantise(value.y, sums.scale, inverse),
          quantise(value.z, sums.scale, inverse), quantise(value.w, sums.scale, inverse)};
      int integers[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        // Not a number in rows that take no part.
        integers[i] = packs ? q[i].integer : 0;
        squared += static_cast<int64_t>(integers[i]) * integers[i];
      }
      add_square(errors, {q[0].quantisation_error, q[1].quantisation_error, q[2].quantisation_error,
                          q[3].quantisation_error});
      target_.store(k, integers);
    });
    sums.squared_errors = threads_.sum(total(errors));
    sums.squared_integers = threads_.sum(squared);
    return packed_row_info(sums, columns_);
  }

  __device__ void pack_nothing() const {
    for_each_four([&](int64_t k, int) {
      constexpr int zeros[4]{};
      target_.store(k, zeros);
    });
  }

 private:
  // Every thread of the team gets the answer.
  template <class T>
  __device__ bool equal(const Row<T>& row, const Row<T>& other, bool aligned) const {
    uint32_t differs = 0;
    for (int64_t k = thread_ * 4; k < columns_; k += team * 4) {
      differs |=
          !equal_fours(four_of(row, k, columns_, aligned), four_of(other, k, columns_, aligned));
    }
    return threads_.largest(differs) == 0;
  }

  // The register slots are compile-time constants in the unrolled part, hence the two loops.
  template <class Body>
  __device__ void for_each_four(const Body& body) const {
    const int64_t end = target_.slabs * slab_bytes;
#pragma unroll
    for (int slot = 0; slot < cached_fours; ++slot) {
      const int64_t k = (static_cast<int64_t>(slot) * team + thread_) * 4;
      if (k < end) body(k, slot);
    }
    for (int64_t k = (static_cast<int64_t>(cached_fours) * team + thread_) * 4; k < end;
         k += team * 4) {
      body(k, cached_fours);
    }
  }

  __device__ static void keep(float4 (&kept)[cached_fours], int slot, const float4& value) {
#pragma unroll
    for (int i = 0; i < cached_fours; ++i) {
      if (i == slot) kept[i] = value;
    }
  }
  __device__ static float4 kept_at(const float4 (&kept)[cached_fours], int slot) {
    float4 value{};
#pragma unroll
    for (int i = 0; i < cached_fours; ++i) {
      if (i == slot) value = kept[i];
    }
    return value;
  }

  __device__ float4 centred_four(const float4& v, int64_t k) const {
    if (k >= columns_) return {0, 0, 0, 0};
    // The centre is padded with zeros to whole slabs.
    const float4 c = *reinterpret_cast<const float4*>(p_.centre + k);
    return {centred(v.x, scale_, c.x), centred(v.y, scale_, c.y), centred(v.z, scale_, c.z),
            centred(v.w, scale_, c.w)};
  }

  const PackProblem& p_;
  const Team<team>& threads_;
  int thread_;
  int64_t columns_;
  float scale_;
  Target target_;
};

__device__ void raise(float* to, float value) {
  // Non-negative floats are ordered as their bits are.
  atomicMax(reinterpret_cast<int*>(to), __float_as_int(value));
}

__device__ void publish(const PackProblem& p, int64_t at, const PackedRowInfo& info) {
  if (p.queries != nullptr) {
    p.queries[at] = PackedQuery::of(info);
    return;
  }
  p.columns[at] = PoolColumn::of(info);
  p.bounds[at] = {info.quantisation_error, info.norm_bound};
  if (info.kind == RowKind::usual) {
    raise(&p.panels[at / panel_rows].quantisation_error, info.quantisation_error);
    raise(&p.panels[at / panel_rows].norm_bound, info.norm_bound);
  }
  if (info.kind == RowKind::out_of_range)
    p.out_of_range[atomicAdd(p.out_of_range_count, 1)] = static_cast<int32_t>(at);
}

template <int team>
__device__ void pack_all(const PackProblem& p, bool aligned) {
  __shared__ int64_t scratch[block_threads / 32];
  if (p.gate != nullptr && *p.gate == 0) return;
  const int64_t active = p.selection.active();
  const int64_t end =
      p.selection.count != nullptr ? ceil_div(active, panel_rows) * panel_rows : p.padded_rows;
  constexpr int64_t rows_per_block = block_threads / team;
  const int number = static_cast<int>(threadIdx.x) / team;
  const Team<team> threads{scratch + number * Team<team>::warps, number};
  for (int64_t at = blockIdx.x * rows_per_block + threadIdx.x / team; at < end;
       at += gridDim.x * rows_per_block) {
    RowPacker<team> packer(p, threads, at);
    PackedRowInfo info = excluded_row;
    if (at < active) {
      const int64_t row = p.selection.row(static_cast<int>(at));
      info = with_type(p.rows.dtype, [&](auto type) {
        const bool skips = p.skips_repeats && row > 0;
        return packer.pack(row_of<decltype(type)>(p.rows, row),
                           row_of<decltype(type)>(p.rows, skips ? row - 1 : row), skips, aligned);
      });
    } else {
      packer.pack_nothing();
    }
    if (threadIdx.x % team == 0) publish(p, at, info);
  }
}

template <int team>
__global__ void __launch_bounds__(block_threads, 2)
    pack_kernel([[maybe_unused]] const __grid_constant__ PackProblem p,
                [[maybe_unused]] bool aligned) {
  if (!before_ampere) pack_all<team>(p, aligned);
}

// ------------------------------------------------------------------------------------------------

constexpr int frame_threads = 128;

// The largest magnitude of each of a few rows; +inf where there is no such row or it is not finite.
struct Sample {
  Matrix matrix;
  const float* centre;  // nullptr: zero
  float* largest;       // [frame_samples]

  __device__ int64_t count() const { return min(frame_samples, matrix.rows); }
  __device__ int64_t row(int64_t i) const { return i * matrix.rows / count(); }
};

struct Samples {
  Sample of[2];
};

template <class T>
__device__ uint32_t largest_of_row(const Row<T>& row, const float* centre, int64_t columns) {
  uint32_t most = 0;
#pragma unroll 8
  for (int64_t k = threadIdx.x; k < columns; k += frame_threads) {
    most = max(most, magnitude(row[k] - (centre != nullptr ? centre[k] : 0)));
  }
  return most;
}

// A block for each row of each sample.
__global__ void __launch_bounds__(frame_threads)
    magnitude_kernel(const __grid_constant__ Samples samples) {
  __shared__ uint32_t found[frame_threads / 32];
  const Sample& sample = samples.of[blockIdx.y];
  const int64_t i = blockIdx.x;
  uint32_t most = 0x7f800000u;
  if (i < sample.count()) {
    most = with_type(sample.matrix.dtype, [&](auto type) {
      const auto row = row_of<decltype(type)>(sample.matrix, sample.row(i));
      return largest_of_row(row, sample.centre, sample.matrix.columns);
    });
  }
  most = largest_of_warp(most);
  if (threadIdx.x % 32 == 0) found[threadIdx.x / 32] = most;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (const uint32_t other : found) most = max(most, other);
  sample.largest[i] = __uint_as_float(min(most, 0x7f800000u));
}

// The median of the finite ones, by one thread each; every thread of the block gets it.
__device__ float median(const float* values, float* out) {
  const int i = static_cast<int>(threadIdx.x);
  __syncthreads();
  if (i == 0) *out = 0;
  __syncthreads();
  if (i < frame_samples && is_finite(values[i])) {
    int below = 0;
    int all = 0;
    for (int j = 0; j < frame_samples; ++j) {
      if (!is_finite(values[j])) continue;
      ++all;
      below += values[j] < values[i] || (values[j] == values[i] && j < i);
    }
    if (below == all / 2) *out = values[i];
  }
  __syncthreads();
  return *out;
}

// One column of the sampled rows without outliers.
template <class T>
__device__ float robust_mean(const Sample& sample, const float* largest, float usual, int64_t k) {
  const int count = static_cast<int>(sample.count());
  float sum = 0;
  int taken = 0;
#pragma unroll 8
  for (int i = 0; i < count; ++i) {
    const bool takes = is_finite(largest[i]) && largest[i] <= 8 * usual;
    sum += (takes ? row_of<T>(sample.matrix, sample.row(i))[k] : 0) / frame_samples;
    taken += takes;
  }
  return taken > 0 ? sum * (static_cast<float>(frame_samples) / static_cast<float>(taken)) : 0;
}

// Distances do not depend on the centre; bounds are tightest where the pool is near it.
__global__ void __launch_bounds__(frame_threads) mean_kernel(const Sample pool, float* mean) {
  __shared__ float largest[frame_samples];
  __shared__ float out;
  if (threadIdx.x < frame_samples) largest[threadIdx.x] = pool.largest[threadIdx.x];
  const float usual = median(largest, &out);
  const int64_t k = static_cast<int64_t>(blockIdx.x) * frame_threads + threadIdx.x;
  if (k >= pool.matrix.columns) return;
  mean[k] = with_type(pool.matrix.dtype, [&](auto type) {
    return robust_mean<decltype(type)>(pool, largest, usual, k);
  });
}

// A power of two that brings values of this size near one.
__device__ float scale_for(float size) {
  if (!(size > 0) || !is_finite(size)) return 1;
  return ldexpf(1.0f, max(-126, min(126, -ilogbf(size))));
}

// Scales the centre; its columns beyond the rows' become zero.
__global__ void __launch_bounds__(frame_threads)
    frame_kernel(const float* largest, int64_t columns, float* centre, Frame* frame) {
  __shared__ float sizes[2 * frame_samples];
  __shared__ float out;
  if (threadIdx.x < 2 * frame_samples) sizes[threadIdx.x] = largest[threadIdx.x];
  const float first = median(sizes, &out);
  const float second = median(sizes + frame_samples, &out);
  const float scale = scale_for(fmaxf(first, second));
  const int64_t k = static_cast<int64_t>(blockIdx.x) * frame_threads + threadIdx.x;
  const float value = k < columns ? centre[k] * scale : 0;
  centre[k] = is_finite(value) ? value : 0;
  if (k == 0) *frame = {scale, static_cast<double>(scale) * scale};
}

template <int team>
void launch(const PackProblem& problem, cudaStream_t stream) {
  const int64_t blocks = ceil_div(problem.padded_rows, block_threads / team);
  const bool optional = problem.gate != nullptr || problem.selection.count != nullptr;
  const int64_t most = optional ? most_optional_blocks : most_blocks;
  const auto grid = static_cast<unsigned>(blocks < most ? blocks : most);
  start(pack_kernel<team>, grid, block_threads, 0, stream, problem, aligned_for_four(problem.rows));
}

}  // namespace

void pack_rows(const PackProblem& problem, cudaStream_t stream) {
  // The smallest team that keeps the row in its registers.
  const int64_t fours = problem.slabs * slab_bytes / 4;
  if (fours <= 32 * cached_fours) return launch<32>(problem, stream);
  if (fours <= 64 * cached_fours) return launch<64>(problem, stream);
  if (fours <= 128 * cached_fours) return launch<128>(problem, stream);
  launch<256>(problem, stream);
}

void choose_frame(const Matrix& data, const Matrix& pool, float* centre, Frame* frame,
                  float* largest, cudaStream_t stream) {
  static_assert(2 * frame_samples <= frame_threads && slab_bytes % frame_threads == 0);
  const Sample raw{pool, nullptr, largest};
  const Sample centred_pool{pool, centre, largest};
  const Sample centred_data{data, centre, largest + frame_samples};
  constexpr auto rows = static_cast<unsigned>(frame_samples);
  const auto columns = static_cast<unsigned>(slabs_of(pool.columns) * (slab_bytes / frame_threads));
  start(magnitude_kernel, rows, frame_threads, 0, stream, Samples{{raw, raw}});
  start(mean_kernel, columns, frame_threads, 0, stream, raw, centre);
  start(magnitude_kernel, dim3(rows, 2), frame_threads, 0, stream,
        Samples{{centred_pool, centred_data}});
  start(frame_kernel, columns, frame_threads, 0, stream, largest, pool.columns, centre, frame);
}

}  // namespace naign::cuda
