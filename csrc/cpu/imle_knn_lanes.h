// Exact distances of sixteen data rows, one a lane, to one pool row after the other: nothing is
// discarded, nothing is compared twice. Included by an instruction set's source file inside its
// target region (no include guard).

using Indices = int64_t __attribute__((vector_size(64)));

// Sixteen lanes of numbers.
template <class Vector>
struct Pair {
  Vector low, high;
  Pair operator+(const Pair& other) const { return {low + other.low, high + other.high}; }
};

template <class Vector, class Number>
inline __attribute__((always_inline)) Pair<Vector> load_pair(const Number* from) {
  return {load<Vector>(from), load<Vector>(from + 8)};
}

template <class Vector, class Number>
inline __attribute__((always_inline)) void store_pair(Number* to, const Pair<Vector>& pair) {
  std::memcpy(to, &pair, sizeof(pair));
}

// The sum of the partial sums first, first + span, ... of the distance: halves are added to
// halves, and a half that lies beyond the last column is zero.
template <int64_t span>
inline __attribute__((always_inline)) Pair<Doubles> partial_sum(const double* data,
                                                                const double* row, int64_t columns,
                                                                int64_t first) {
  if constexpr (span == distance_lanes) {
    Pair<Doubles> sum{};
    for (int64_t k = first; k < columns; k += span) {
      const Pair<Doubles> x = load_pair<Doubles>(data + k * lane_rows);
      const Doubles low = x.low - row[k];
      const Doubles high = x.high - row[k];
      sum = sum + Pair<Doubles>{low * low, high * high};
    }
    return sum;
  } else {
    const Pair<Doubles> half = partial_sum<2 * span>(data, row, columns, first);
    if (first + span >= columns) return half;
    return half + partial_sum<2 * span>(data, row, columns, first + span);
  }
}

// Keeps the smaller (distance, index); a NaN is never smaller.
inline __attribute__((always_inline)) void keep_nearer(Doubles& best, Indices& index,
                                                       Doubles distance, Indices candidate,
                                                       double reject_below) {
  const Indices tie = (distance == best) & (candidate < index);
  const Indices nearer = ((distance < best) | tie) & (distance >= reject_below);
  best = nearer ? distance : best;
  index = nearer ? candidate : index;
}

void nearest_by_lanes(const LaneRows& work) {
  auto best = load_pair<Doubles>(work.distances);
  auto index = load_pair<Indices>(work.indices);
  for (int64_t j = 0; j < work.pool_rows; ++j) {
    const Pair<Doubles> distance =
        partial_sum<1>(work.data, work.pool + j * work.columns, work.columns, 0);
    const Indices candidate = Indices{} + (work.first_index + j);
    keep_nearer(best.low, index.low, distance.low, candidate, work.reject_below);
    keep_nearer(best.high, index.high, distance.high, candidate, work.reject_below);
  }
  store_pair(work.distances, best);
  store_pair(work.indices, index);
}
