// Models of the matrix instructions, written from the PTX ISA and not from the kernels: a mistake
// in a layout, a descriptor or a fragment shows as a wrong product.
#include <algorithm>
#include <cstring>
#include <vector>

#include "imle_knn/cuda/packing.h"
#include "imle_knn/emulation.h"

namespace naign::emulation {
namespace {

// Rows as pack_rows stores them.
std::vector<int8_t> packed(const int8_t* rows, int64_t count, int64_t bytes) {
  const int64_t slabs = cuda::slabs_of(bytes);
  std::vector<int8_t> out(count * slabs * cuda::slab_bytes);
  for (int64_t row = 0; row < count; ++row) {
    for (int64_t byte = 0; byte < bytes; ++byte) {
      out[cuda::packed_offset(row, byte, slabs)] = rows[row * bytes + byte];
    }
  }
  return out;
}

// Shared memory with panels of both sides at multiples of 1024.
struct SharedMemory {
  static constexpr uint32_t queries_at = 1024;
  static constexpr uint32_t pool_at = queries_at + 16384;
  std::vector<int8_t> bytes = std::vector<int8_t>(pool_at + 2 * 16384);

  void load(uint32_t to, const int8_t* from, int64_t count) {
    std::copy_n(from, count, bytes.data() + to);
  }
};

// A byte of an operand in shared memory: rows of 128 bytes, groups of eight rows the stride apart,
// bits 4 to 6 of the address exchanged with themselves xor bits 7 to 9.
int8_t operand(const SharedMemory& memory, uint64_t descriptor, int row, int byte) {
  const uint64_t start = (descriptor & 0x3fff) << 4;
  const uint64_t stride = (descriptor >> 32 & 0x3fff) << 4;
  const uint64_t base_offset = descriptor >> 49 & 7;
  const uint64_t mode = descriptor >> 62;
  if (mode != 1 || base_offset != 0) return 0;
  const uint64_t linear = start + row / 8 * stride + row % 8 * 128 + byte;
  return memory.bytes[linear ^ (linear >> 7 & 7) << 4];
}

// m64nNk32: the sums of one warpgroup's lanes.
void wgmma(const SharedMemory& memory, uint64_t a, uint64_t b, int columns,
           std::vector<int32_t>& sums) {
  for (int thread = 0; thread < 128; ++thread) {
    for (int i = 0; i < columns / 2; ++i) {
      const int row = thread / 32 * 16 + thread % 32 / 4 + (i % 4 >= 2 ? 8 : 0);
      const int column = i / 4 * 8 + thread % 4 * 2 + (i & 1);
      for (int byte = 0; byte < 32; ++byte) {
        sums[thread * (columns / 2) + i] +=
            operand(memory, a, row, byte) * operand(memory, b, column, byte);
      }
    }
  }
}

// ldmatrix.x4: lane l receives bytes 4 (l % 4) ... of row l / 4 of four matrices.
void load_matrices(const SharedMemory& memory, const uint32_t (&addresses)[32],
                   int8_t (&out)[32][4][4]) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      const uint32_t row = addresses[matrix * 8 + lane / 4];
      std::memcpy(out[lane][matrix], memory.bytes.data() + row + lane % 4 * 4, 4);
    }
  }
}

// m16n8k32 with operands in registers.
void mma(const int8_t (&a)[32][4][4], const int8_t (&b)[32][4][4], int first_b, int32_t* sums,
         int64_t lane_stride) {
  int8_t whole_a[16][32];
  int8_t whole_b[8][32];
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 16; ++i) {
      const int row = lane / 4 + (i / 4 % 2 == 1 ? 8 : 0);
      whole_a[row][lane % 4 * 4 + i % 4 + (i >= 8 ? 16 : 0)] = a[lane][i / 4][i % 4];
    }
    for (int i = 0; i < 8; ++i) {
      whole_b[lane / 4][lane % 4 * 4 + i % 4 + (i >= 4 ? 16 : 0)] = b[lane][first_b + i / 4][i % 4];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + (i >= 2 ? 8 : 0);
      const int column = lane % 4 * 2 + (i & 1);
      for (int byte = 0; byte < 32; ++byte) {
        sums[lane * lane_stride + i] += whole_a[row][byte] * whole_b[column][byte];
      }
    }
  }
}

}  // namespace

void wgmma_products(const int8_t* a, const int8_t* b, int64_t rows, int64_t columns, int64_t bytes,
                    int32_t* sums) {
  constexpr int tile_columns = 256;
  const int64_t slabs = cuda::slabs_of(bytes);
  const std::vector<int8_t> queries = packed(a, rows, bytes);
  const std::vector<int8_t> pool = packed(b, columns, bytes);
  SharedMemory memory;
  for (int64_t first_row = 0; first_row < rows; first_row += 64) {
    for (int64_t first_column = 0; first_column < columns; first_column += tile_columns) {
      std::vector<int32_t> lanes(128 * tile_columns / 2);
      for (int64_t slab = 0; slab < slabs; ++slab) {
        const auto panel_slab = [&](const std::vector<int8_t>& values, int64_t row) {
          return values.data() + (row / cuda::panel_rows * slabs + slab) * cuda::panel_slab_bytes;
        };
        memory.load(SharedMemory::queries_at, panel_slab(queries, first_row), 16384);
        memory.load(SharedMemory::pool_at, panel_slab(pool, first_column), 16384);
        memory.load(SharedMemory::pool_at + 16384, panel_slab(pool, first_column + 128), 16384);
        for (int64_t step = 0; step < 4; ++step) {
          const uint64_t advance = step * cuda::step_bytes >> 4;
          const uint64_t warpgroup = first_row % cuda::panel_rows * cuda::slab_bytes >> 4;
          wgmma(memory, cuda::matrix_descriptor(SharedMemory::queries_at) + warpgroup + advance,
                cuda::matrix_descriptor(SharedMemory::pool_at) + advance, tile_columns, lanes);
        }
      }
      for (int thread = 0; thread < 128; ++thread) {
        for (int i = 0; i < tile_columns / 2; ++i) {
          const int64_t row = first_row + thread / 32 * 16 + cuda::fragment_row(thread % 32, i);
          const int64_t column = first_column + cuda::fragment_column(thread % 32, i);
          sums[row * columns + column] = lanes[thread * (tile_columns / 2) + i];
        }
      }
    }
  }
}

void mma_products(const int8_t* a, const int8_t* b, int64_t rows, int64_t columns, int64_t bytes,
                  int32_t* sums) {
  const int64_t slabs = cuda::slabs_of(bytes);
  const std::vector<int8_t> queries = packed(a, rows, bytes);
  const std::vector<int8_t> pool = packed(b, columns, bytes);
  SharedMemory memory;
  // A warp's 16 x 16 at a time.
  for (int64_t first_row = 0; first_row < rows; first_row += 16) {
    for (int64_t first_column = 0; first_column < columns; first_column += 16) {
      int32_t lanes[32][8]{};
      for (int64_t slab = 0; slab < slabs; ++slab) {
        const int64_t query_panel = first_row / cuda::panel_rows * slabs + slab;
        const int64_t pool_panel = first_column / cuda::panel_rows * slabs + slab;
        memory.load(SharedMemory::queries_at, queries.data() + query_panel * 16384, 16384);
        memory.load(SharedMemory::pool_at, pool.data() + pool_panel * 16384, 16384);
        for (int step = 0; step < 4; ++step) {
          uint32_t query_addresses[32];
          uint32_t pool_addresses[32];
          for (int lane = 0; lane < 32; ++lane) {
            query_addresses[lane] =
                SharedMemory::queries_at + static_cast<uint32_t>(cuda::lane_query_offset(
                                               static_cast<int>(first_row % 128), step, lane));
            pool_addresses[lane] =
                SharedMemory::pool_at + static_cast<uint32_t>(cuda::lane_pool_offset(
                                            static_cast<int>(first_column % 128), step, lane));
          }
          int8_t query_registers[32][4][4];
          int8_t pool_registers[32][4][4];
          load_matrices(memory, query_addresses, query_registers);
          load_matrices(memory, pool_addresses, pool_registers);
          mma(query_registers, pool_registers, 0, &lanes[0][0], 8);
          mma(query_registers, pool_registers, 2, &lanes[0][4], 8);
        }
      }
      for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 8; ++i) {
          const int64_t row = first_row + cuda::fragment_row(lane, i);
          const int64_t column = first_column + cuda::fragment_column(lane, i);
          sums[row * columns + column] = lanes[lane][i];
        }
      }
    }
  }
}

}  // namespace naign::emulation
