// The filter by wgmma: Hopper. A block stays on its multiprocessor and takes one tile of 128 data
// rows and `tile_columns` pool rows after the other. One thread copies slabs of 128 bytes a row
// into a ring of stages; two warpgroups multiply 64 data rows each and hold their sums in
// registers. Packed slabs already have the layout that wgmma reads, so a copy is a plain bulk copy.
#include "common/launch.cuh"
#include "imle_knn/cuda/filter.cuh"
#include "imle_knn/cuda/ptx.cuh"
#include "imle_knn/cuda/wgmma.cuh"

namespace naign::cuda {
namespace {

constexpr int warpgroup = 128;
constexpr int consumers = 2;
constexpr int threads = (consumers + 1) * warpgroup;
constexpr int consumer_rows = 64;
constexpr int swizzle_bytes = 1024;
constexpr int panel_bytes = static_cast<int>(panel_slab_bytes);

// 227 KiB a block, and a few KiB for the rest.
template <int tile_columns>
constexpr int stages_for = tile_columns == 256 ? 4 : 8;

template <int tile_columns>
struct Shared {
  static constexpr int stages = stages_for<tile_columns>;
  static constexpr int pool_bytes = tile_columns * static_cast<int>(slab_bytes);
  int8_t queries[stages][panel_bytes];
  int8_t pool[stages][pool_bytes];
  PoolColumn columns[consumers][tile_columns];
  RowLimit rows[consumers][consumer_rows];
  uint64_t full[stages];
  uint64_t empty[stages];
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL

// A place in the ring of stages, and the parity of its present use.
template <int stages>
struct Place {
  int stage = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
};

template <int tile_columns, int digits>
__device__ void produce(const FilterProblem& p, Shared<tile_columns>& shared, const Tiles& tiles) {
  constexpr int stages = Shared<tile_columns>::stages;
  constexpr int pool_bytes = Shared<tile_columns>::pool_bytes;
  const Slabs<digits> slab{p.slabs};
  const int64_t row_slabs = static_cast<int64_t>(p.slabs) * digits;
  Place<stages> place;
  for (int64_t tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    int64_t row_tile, column_tile;
    tiles.at(tile, row_tile, column_tile);
    const int64_t first_column = column_tile * tile_columns;
    const int8_t* queries = p.query_values + row_tile * row_slabs * panel_slab_bytes;
    const int8_t* pool = p.pool_values + first_column / panel_rows * row_slabs * panel_slab_bytes +
                         first_column % panel_rows * slab_bytes;
    for (int i = 0; i < slab.count(); ++i) {
      // A fresh barrier counts as having finished the phase of parity 1: the first round passes.
      barrier_wait(shared_address(&shared.empty[place.stage]), place.parity ^ 1);
      const uint32_t full = shared_address(&shared.full[place.stage]);
      barrier_expect(full, panel_bytes + pool_bytes);
      bulk_copy(shared_address(shared.queries[place.stage]),
                queries + slab.query(i) * panel_slab_bytes, panel_bytes, full);
      constexpr int piece = pool_bytes < panel_bytes ? pool_bytes : panel_bytes;
      for (int part = 0; part < pool_bytes / piece; ++part) {
        bulk_copy(shared_address(shared.pool[place.stage]) + part * piece,
                  pool + (part * row_slabs + slab.pool(i)) * panel_slab_bytes, piece, full);
      }
      place.advance();
    }
  }
}

// Starts the products of a slab's first `steps` steps; the first of all overwrites the sums.
template <int steps, int n>
__device__ void multiply_slab(int32_t (&sum)[n], uint64_t a, uint64_t b, bool adds) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < steps; ++step) {
    constexpr int advance = static_cast<int>(step_bytes >> 4);
    multiply(sum, a + step * advance, b + step * advance, step > 0 || adds);
  }
  wgmma_commit();
}

template <int tile_columns, int digits, bool seeds>
__device__ void consume(const FilterProblem& p, Shared<tile_columns>& shared, const Tiles& tiles,
                        int active) {
  constexpr int stages = Shared<tile_columns>::stages;
  const int consumer = static_cast<int>(threadIdx.x) / warpgroup - 1;
  const int thread = static_cast<int>(threadIdx.x) % warpgroup;
  const int warp_row = thread / 32 * 16;
  const int barrier = 1 + consumer;
  const Slabs<digits> slab{p.slabs};
  const uint64_t queries = matrix_descriptor(shared_address(shared.queries[0])) +
                           (consumer * consumer_rows * slab_bytes >> 4);
  const uint64_t pool = matrix_descriptor(shared_address(shared.pool[0]));
  RowLimit* rows = shared.rows[consumer];
  PoolColumn* columns = shared.columns[consumer];
  int32_t sum[tile_columns / 2];
  Place<stages> place;
  for (int64_t tile = blockIdx.x; tile < tiles.count(); tile += gridDim.x) {
    int64_t row_tile, column_tile;
    tiles.at(tile, row_tile, column_tile);
    const int64_t first_column = column_tile * tile_columns;
    const int first_row = static_cast<int>(row_tile * panel_rows) + consumer * consumer_rows;
    int previous = -1;
    for (int i = 0; i < slab.count(); ++i) {
      barrier_wait(shared_address(&shared.full[place.stage]), place.parity);
      if (slab.shifts_before(i)) {
        wgmma_wait<0>();
        pin(sum);
#pragma unroll
        for (int32_t& s : sum) s *= 128;
        pin(sum);
      }
      const uint64_t a = queries + static_cast<uint64_t>(place.stage * panel_bytes >> 4);
      const uint64_t b =
          pool + static_cast<uint64_t>(place.stage * Shared<tile_columns>::pool_bytes >> 4);
      const int steps = slab.last_of_row(i) ? p.last_steps : 4;
      if (steps == 4) {
        multiply_slab<4>(sum, a, b, i > 0);
      } else if (steps == 3) {
        multiply_slab<3>(sum, a, b, i > 0);
      } else if (steps == 2) {
        multiply_slab<2>(sum, a, b, i > 0);
      } else {
        multiply_slab<1>(sum, a, b, i > 0);
      }
      // The slab before this one has been read: its stage may be filled again.
      wgmma_wait<1>();
      if (previous >= 0 && thread % 32 == 0) {
        barrier_arrive(shared_address(&shared.empty[previous]));
      }
      previous = place.stage;
      place.advance();
    }
    // While the last products run: what the sums will be held against.
    named_barrier(barrier, warpgroup);
    const RowBound bound = bound_of_panels(p.panels, first_column, tile_columns);
    if (thread < consumer_rows) rows[thread] = row_limit(p, first_row + thread, active, bound);
    for (int c = thread; c < tile_columns; c += warpgroup) columns[c] = p.columns[first_column + c];
    named_barrier(barrier, warpgroup);
    wgmma_wait<0>();
    pin(sum);
    if (thread % 32 == 0) barrier_arrive(shared_address(&shared.empty[previous]));
    const WarpTile<1, tile_columns / 8> warp_tile{
        p, sum, rows + warp_row, columns, first_column, first_row + warp_row, thread % 32};
    if constexpr (seeds) {
      warp_tile.seed();
    } else {
      warp_tile.filter(bound);
    }
  }
}

#endif

template <int tile_columns, int digits, bool seeds>
__global__ void __launch_bounds__(threads, 1)
    filter_kernel([[maybe_unused]] const __grid_constant__ FilterProblem p) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  int8_t* memory = dynamic_shared_memory();
  // The swizzle is one of addresses: panels begin at multiples of 1024.
  const uint32_t misplaced = shared_address(memory) % swizzle_bytes;
  int8_t* aligned = memory + (misplaced > 0 ? swizzle_bytes - misplaced : 0);
  auto& shared = *reinterpret_cast<Shared<tile_columns>*>(aligned);
  if (threadIdx.x == 0) {
    for (int s = 0; s < Shared<tile_columns>::stages; ++s) {
      barrier_init(shared_address(&shared.full[s]), 1);
      barrier_init(shared_address(&shared.empty[s]), consumers * warpgroup / 32);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int active = p.count != nullptr ? min(*p.count, p.rows) : p.rows;
  const Tiles tiles{ceil_div(active, panel_rows), ceil_div(p.pool_rows, tile_columns)};
  if (threadIdx.x < warpgroup) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<tile_columns, digits>(p, shared, tiles);
  } else {
    take_registers<232>();
    consume<tile_columns, digits, seeds>(p, shared, tiles, active);
  }
#endif
}

template <int tile_columns, int digits, bool seeds>
void launch(const FilterProblem& problem, int multiprocessors, cudaStream_t stream) {
  const auto kernel = filter_kernel<tile_columns, digits, seeds>;
  constexpr size_t bytes = sizeof(Shared<tile_columns>) + swizzle_bytes;
  static_assert(bytes <= 227 * 1024);
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  const int64_t tiles =
      ceil_div(problem.rows, panel_rows) * ceil_div(problem.pool_rows, tile_columns);
  const int64_t blocks = tiles < multiprocessors ? tiles : multiprocessors;
  start(kernel, static_cast<unsigned>(blocks), threads, bytes, stream, problem);
}

}  // namespace

void run_filter_sm90(const FilterProblem& problem, int multiprocessors, cudaStream_t stream) {
  if (problem.groups != nullptr) return launch<64, 1, true>(problem, multiprocessors, stream);
  // Narrow tiles where wide ones would leave multiprocessors idle.
  const int64_t wide = ceil_div(problem.rows, panel_rows) * ceil_div(problem.pool_rows, 256);
  const bool narrow = wide < multiprocessors;
  if (problem.digits == 1) {
    return narrow ? launch<64, 1, false>(problem, multiprocessors, stream)
                  : launch<256, 1, false>(problem, multiprocessors, stream);
  }
  return narrow ? launch<64, 2, false>(problem, multiprocessors, stream)
                : launch<256, 2, false>(problem, multiprocessors, stream);
}

}  // namespace naign::cuda
