// The filter by mma.sync: any GPU from Ampere on. A block of 8 warps takes 128 data rows and 128
// pool rows; a warp takes 32 x 64 of them. Slabs of 128 bytes arrive through three stages of
// cp.async.
#include "common/launch.cuh"
#include "imle_knn/cuda/filter.cuh"
#include "imle_knn/cuda/ptx.cuh"

namespace naign::cuda {
namespace {

constexpr int threads = 256;
constexpr int stages = 3;
constexpr int tile_columns = 128;
constexpr int warps_across = 2;
constexpr int row_pairs = 2;
constexpr int column_blocks = 8;
constexpr int panel_bytes = static_cast<int>(panel_slab_bytes);

struct Shared {
  int8_t queries[stages][panel_bytes];
  int8_t pool[stages][panel_bytes];
  RowLimit rows[panel_rows];
  PoolColumn columns[tile_columns];
};

__device__ void copy_panel(int8_t* to, const int8_t* from) {
  const uint32_t address = shared_address(to);
#pragma unroll
  for (int i = 0; i < panel_bytes / (threads * 16); ++i) {
    const int at = (i * threads + static_cast<int>(threadIdx.x)) * 16;
    copy_async(address + at, from + at);
  }
}

// One step: 32 bytes of every row.
__device__ void multiply_step(int32_t (&sum)[row_pairs * column_blocks * 4], uint32_t queries,
                              uint32_t pool, int step, int lane) {
  uint32_t a[row_pairs][4];
#pragma unroll
  for (int m = 0; m < row_pairs; ++m) {
    load_matrices(a[m], queries + static_cast<uint32_t>(lane_query_offset(m * 16, step, lane)));
  }
#pragma unroll
  for (int n = 0; n < column_blocks; n += 2) {
    uint32_t b[4];
    load_matrices(b, pool + static_cast<uint32_t>(lane_pool_offset(n * 8, step, lane)));
#pragma unroll
    for (int m = 0; m < row_pairs; ++m) {
      multiply(sum + (m * column_blocks + n) * 4, a[m], b[0], b[1]);
      multiply(sum + (m * column_blocks + n + 1) * 4, a[m], b[2], b[3]);
    }
  }
}

template <int digits, bool seeds>
__device__ void filter_tiles(const FilterProblem& p) {
  Shared& shared = *reinterpret_cast<Shared*>(dynamic_shared_memory());
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warp_row = warp / warps_across * row_pairs * 16;
  const int warp_column = warp % warps_across * column_blocks * 8;
  const int active = p.count != nullptr ? min(*p.count, p.rows) : p.rows;
  const Slabs<digits> slab{p.slabs};
  const int64_t row_slabs = static_cast<int64_t>(p.slabs) * digits;
  const int64_t row_tiles = ceil_div(active, panel_rows);
  const int64_t tiles = row_tiles * ceil_div(p.pool_rows, tile_columns);

  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t first_row = tile % row_tiles * panel_rows;
    const int64_t first_column = tile / row_tiles * tile_columns;
    const int8_t* query_panel =
        p.query_values + first_row / panel_rows * row_slabs * panel_slab_bytes;
    const int8_t* pool_panel =
        p.pool_values + first_column / panel_rows * row_slabs * panel_slab_bytes;
    const auto load = [&](int i) {
      if (i < slab.count()) {
        copy_panel(shared.queries[i % stages], query_panel + slab.query(i) * panel_slab_bytes);
        copy_panel(shared.pool[i % stages], pool_panel + slab.pool(i) * panel_slab_bytes);
      }
      copy_async_commit();
    };
    int32_t sum[row_pairs * column_blocks * 4] = {};
    // The tile before is done with the buffers.
    __syncthreads();
    for (int i = 0; i < stages - 1; ++i) load(i);
    const RowBound bound = bound_of_panels(p.panels, first_column, tile_columns);
    if (threadIdx.x < panel_rows) {
      const int slot = static_cast<int>(first_row + threadIdx.x);
      shared.rows[threadIdx.x] = row_limit(p, slot, active, bound);
      shared.columns[threadIdx.x] = p.columns[first_column + threadIdx.x];
    }
    for (int i = 0; i < slab.count(); ++i) {
      copy_async_wait<stages - 2>();
      // Slab i is there for all threads, and all are done with slab i - 1, whose place is next.
      __syncthreads();
      load(i + stages - 1);
      if (slab.shifts_before(i)) {
#pragma unroll
        for (int32_t& s : sum) s *= 128;
      }
      const uint32_t queries =
          shared_address(shared.queries[i % stages]) + warp_row * static_cast<int>(slab_bytes);
      const uint32_t pool =
          shared_address(shared.pool[i % stages]) + warp_column * static_cast<int>(slab_bytes);
      const int steps = slab.last_of_row(i) ? p.last_steps : 4;
#pragma unroll
      for (int step = 0; step < 4; ++step) {
        if (step < steps) multiply_step(sum, queries, pool, step, lane);
      }
    }
    const WarpTile<row_pairs, column_blocks> warp_tile{p,
                                                       sum,
                                                       shared.rows + warp_row,
                                                       shared.columns + warp_column,
                                                       first_column + warp_column,
                                                       static_cast<int>(first_row) + warp_row,
                                                       lane};
    if constexpr (seeds) {
      warp_tile.seed();
    } else {
      warp_tile.filter(bound);
    }
  }
}

template <int digits, bool seeds>
__global__ void __launch_bounds__(threads, 1)
    filter_kernel([[maybe_unused]] const __grid_constant__ FilterProblem p) {
  if (!before_ampere) filter_tiles<digits, seeds>(p);
}

template <int digits, bool seeds>
void launch(const FilterProblem& problem, int multiprocessors, cudaStream_t stream) {
  const auto kernel = filter_kernel<digits, seeds>;
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  const int64_t tiles =
      ceil_div(problem.rows, panel_rows) * ceil_div(problem.pool_rows, tile_columns);
  const int64_t blocks = tiles < multiprocessors ? tiles : multiprocessors;
  start(kernel, static_cast<unsigned>(blocks), threads, sizeof(Shared), stream, problem);
}

}  // namespace

void run_filter_sm80(const FilterProblem& problem, int multiprocessors, cudaStream_t stream) {
  if (problem.groups != nullptr) return launch<1, true>(problem, multiprocessors, stream);
  if (problem.digits == 1) return launch<1, false>(problem, multiprocessors, stream);
  launch<2, false>(problem, multiprocessors, stream);
}

}  // namespace naign::cuda
