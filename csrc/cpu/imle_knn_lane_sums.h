// Float32 sums of squared differences of 32 data rows, one a lane, to one pool row after the other;
// each lane keeps its two smallest. Included by an instruction set's source file inside its target
// region, after it defined Lanes (no include guard).

constexpr int64_t lane_vectors = lane_sum_rows / Lanes::width;

struct TwoSmallest {
  using Vector = typename Lanes::Vector;
  using Index = decltype(Vector{} < Vector{});
  Vector first[lane_vectors];
  Vector second[lane_vectors];
  Index index[lane_vectors];

  // A NaN is never smaller.
  template <size_t V>
  inline __attribute__((always_inline)) void keep(Vector sum, int32_t row) {
    const Index nearer = sum < first[V];
    const Vector next = sum < second[V] ? sum : second[V];
    second[V] = nearer ? first[V] : next;
    first[V] = nearer ? sum : first[V];
    index[V] = nearer ? Index{} + row : index[V];
  }
};

// A few pool rows; sum number s is that of row s / lane_vectors and vector s % lane_vectors.
template <size_t... S>
inline __attribute__((always_inline)) void take_rows(const LaneSums& work, int64_t first,
                                                     TwoSmallest& smallest,
                                                     std::index_sequence<S...>) {
  typename Lanes::Vector sums[sizeof...(S)]{};
  const float* data = work.data;
  const float* pool = work.pool + first * work.pool_stride;
  for (int64_t k = 0; k < work.columns; ++k, data += lane_sum_rows) {
    ((sums[S] = Lanes::add_square(
          sums[S], Lanes::load(data + S % lane_vectors * Lanes::width) -
                       pool[static_cast<int64_t>(S / lane_vectors) * work.pool_stride + k])),
     ...);
  }
  (smallest.keep<S % lane_vectors>(
       sums[S], work.first + static_cast<int32_t>(first) + static_cast<int32_t>(S / lane_vectors)),
   ...);
}

void nearest_by_sums(const LaneSums& work) {
  constexpr int64_t group = std::max<int64_t>(1, 8 / lane_vectors);
  TwoSmallest smallest;
  std::memcpy(smallest.first, work.smallest, sizeof(smallest.first));
  std::memcpy(smallest.second, work.second, sizeof(smallest.second));
  std::memcpy(smallest.index, work.index, sizeof(smallest.index));
  int64_t row = 0;
  for (; row + group <= work.pool_rows; row += group) {
    take_rows(work, row, smallest, std::make_index_sequence<group * lane_vectors>());
  }
  for (; row < work.pool_rows; ++row) {
    take_rows(work, row, smallest, std::make_index_sequence<lane_vectors>());
  }
  std::memcpy(work.smallest, smallest.first, sizeof(smallest.first));
  std::memcpy(work.second, smallest.second, sizeof(smallest.second));
  std::memcpy(work.index, smallest.index, sizeof(smallest.index));
}
