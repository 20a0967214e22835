#include "imle_knn/cpu/packed_search.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "imle_knn/cpu/block_loader.h"
#include "imle_knn/cpu/panel_search.h"
#include "imle_knn/cpu/problem.h"

namespace naign::cpu {
namespace {

constexpr int64_t tiles_per_block = 16;
constexpr int64_t most_tiles = 64;
constexpr int64_t short_block_bytes = 256 << 10;
constexpr int64_t block_bytes = 2 << 20;
constexpr int64_t sums_bytes = 4 << 20;
constexpr int64_t trial_tiles = 2;

// How the panels x blocks grid is cut: blocks as long as the caches hold, groups of panels so small
// that the sums of long rows stay bounded and every thread gets several pieces.
struct Grid {
  int64_t block_rows;
  int64_t blocks;
  int64_t group_panels;
  int64_t groups;
  int64_t threads;
  int64_t trial_rows;  // length of the block that tries the projection

  int64_t first_row(int64_t block) const {
    return block <= trial_block ? block * block_rows : (block - 1) * block_rows + trial_rows;
  }
};

Grid grid_for(const Problem& problem, const Parallel& parallel) {
  const PackedData& packed = problem.stage().packed;
  const int64_t tile_rows = problem.kernels.tile_rows;
  const int64_t tile_bytes = packed.units * PackedData::unit_bytes * tile_rows;
  Grid grid{};
  // Short rows make long blocks, so that thresholds are set less often, but not so long that
  // threads run out of blocks.
  const int64_t long_block = std::clamp<int64_t>(
      problem.pool.count() / (tile_rows * 8 * parallel.threads), tiles_per_block, most_tiles);
  const int64_t tiles =
      std::clamp<int64_t>(short_block_bytes / tile_bytes, tiles_per_block, long_block);
  grid.block_rows = std::min(tiles, std::max<int64_t>(4, block_bytes / tile_bytes)) * tile_rows;
  grid.trial_rows = trial_tiles * tile_rows;
  const int64_t pool_rows = problem.pool.count();
  while (grid.first_row(grid.blocks) < pool_rows) ++grid.blocks;
  const int64_t wanted = std::max<int64_t>(1, 4 * parallel.threads / grid.blocks);
  const int64_t bounded = sums_bytes / (grid.block_rows * packed.lanes * 4);
  grid.group_panels = std::clamp<int64_t>((packed.panels + wanted - 1) / wanted, 1, bounded);
  grid.groups = (packed.panels + grid.group_panels - 1) / grid.group_panels;
  grid.threads = std::min(parallel.threads, grid.blocks * grid.groups);
  return grid;
}

// True where a filter kept so many of the pairs of a block that the next one is cheaper: an exact
// distance costs about as much as 40 pairs in the cheapest filter. Rows first, first + 1, ... of a
// pool in random order hold about k log((first + count) / first) new neighbours of each data row,
// which no filter may discard.
bool keeps_too_many(int64_t evaluations, int64_t queries, int64_t first, int64_t count, int64_t k) {
  constexpr double pairs_worth_one_distance = 40;
  if (first < 2 * k) return false;
  const auto seen = static_cast<double>(first);
  const double found = static_cast<double>(k) * std::log1p(static_cast<double>(count) / seen);
  const double kept = static_cast<double>(evaluations) - 2 * found * static_cast<double>(queries);
  return kept * pairs_worth_one_distance >
         static_cast<double>(queries) * static_cast<double>(count);
}

// What a thread works with while the filter stays the same.
struct Worker {
  const Stage& stage;
  BlockLoader loader;
  PanelSearch panels;
  int64_t loaded = -1;

  Worker(Problem& problem, const Stage& chosen, const Grid& grid)
      : stage(chosen),
        loader(problem, chosen, grid.block_rows),
        panels(problem, chosen, loader.block(), grid.group_panels) {}
};

// One thread's part of the grid: pieces are taken from `next` until none is left.
void search_pieces(Problem& problem, const Grid& grid, std::atomic<int64_t>& next) {
  const PackedData& packed = problem.stage().packed;
  const int64_t pieces = grid.blocks * grid.groups;
  std::optional<Worker> worker;
  for (int64_t piece = next++; piece < pieces; piece = next++) {
    const int64_t block = piece / grid.groups;
    const Stage& stage = problem.stage_for(block);
    if (!worker || &worker->stage != &stage) worker.emplace(problem, stage, grid);
    const int64_t first = grid.first_row(block);
    const int64_t count = std::min(grid.first_row(block + 1), problem.pool.count()) - first;
    if (block != worker->loaded) worker->loader.load(first, count);
    worker->loaded = block;
    const int64_t first_panel = piece % grid.groups * grid.group_panels;
    const int64_t last_panel = std::min(first_panel + grid.group_panels, packed.panels);
    const int64_t evaluations = worker->panels.search(first_panel, last_panel);
    const int64_t queries = (last_panel - first_panel) * packed.lanes;
    const bool enough_left = pieces - piece > 2 * grid.threads;
    if (!keeps_too_many(evaluations, queries, first, count, problem.result.k)) {
      problem.pass_trial(stage);
    } else if (enough_left) {
      problem.leave(stage);
    }
  }
}

}  // namespace

Outcome search_packed(const Matrix& data, const PackedData& packed, const Projection* projection,
                      const PoolRange& pool, const Neighbours& result, const Parallel& parallel) {
  if (data.rows == 0 || pool.rows.rows == 0) return {};
  Problem problem(data, packed, projection, pool, result);
  const Grid grid = grid_for(problem, parallel);
  std::atomic<int64_t> next{0};
  parallel.run(grid.threads, [&](int64_t) { search_pieces(problem, grid, next); });
  // Nothing was projected where there is no projection, so nothing was given up.
  return {problem.take_tightest(), projection == nullptr || problem.projection_pays()};
}

}  // namespace naign::cpu
