// A tile held in registers: pool rows broadcast one unit at a time against two vectors of queries.
// Included by an instruction set's source file inside its target region (no include guard).
//
// Vector gives the instructions; Filter what a product of units means. Row indices are template
// arguments throughout: an array indexed at run time would live in memory.

template <class Filter, size_t... R>
inline __attribute__((always_inline)) uint64_t tile_of(const Tile& tile,
                                                       std::index_sequence<R...>) {
  using Sum = typename Filter::Sum;
  using Scores = typename Filter::Scores;
  constexpr int64_t bytes = sizeof(Sum);
  constexpr int64_t width = bytes / 4;
  const char* panel = tile.panel;
  const char* rows = tile.rows;
  const int64_t stride = tile.row_stride * 4;
  char* carried = tile.sums;
  Sum low[sizeof...(R)];
  Sum high[sizeof...(R)];
  if (tile.first) {
    ((low[R] = high[R] = Filter::start(tile, R)), ...);
  } else {
    ((low[R] = Filter::load(carried + 2 * R * bytes),
      high[R] = Filter::load(carried + (2 * R + 1) * bytes)),
     ...);
  }
  for (int64_t unit = 0; unit < tile.units; ++unit) {
    const Sum queries_low = Filter::load(panel);
    const Sum queries_high = Filter::load(panel + bytes);
    (
        [&] {
          const Sum row = Filter::broadcast(rows + static_cast<int64_t>(R) * stride);
          low[R] = Filter::add_product(low[R], queries_low, row);
          high[R] = Filter::add_product(high[R], queries_high, row);
        }(),
        ...);
    panel += 2 * bytes;
    rows += 4;
  }
  if (!tile.last) {
    ((Filter::store(carried + 2 * R * bytes, low[R]),
      Filter::store(carried + (2 * R + 1) * bytes, high[R])),
     ...);
    return 0;
  }
  const Scores scores_low[]{Filter::score(tile, R, 0, low[R])...};
  const Scores scores_high[]{Filter::score(tile, R, width, high[R])...};
  Scores least_low = scores_low[0];
  Scores least_high = scores_high[0];
  ((least_low = least(least_low, scores_low[R]), least_high = least(least_high, scores_high[R])),
   ...);
  const uint64_t hit = lanes_at_most(least_low, tile.threshold) |
                       lanes_at_most(least_high, tile.threshold + width) << width;
  if (hit == 0) return 0;
  ((store_scores(tile.scores + 2 * R * width, scores_low[R]),
    store_scores(tile.scores + (2 * R + 1) * width, scores_high[R])),
   ...);
  return hit;
}
