// Squared distances in float32 straight from the rows, a few data rows by a few pool rows at a
// time, held in registers. Included by an instruction set's source file inside its target region,
// after it defined Lanes (no include guard).

// Adds neighbouring lanes of a and of b, `span` apart: a lane with that bit set comes from b.
template <size_t span, class Vector, size_t... L>
inline __attribute__((always_inline)) Vector add_lanes(Vector a, Vector b,
                                                       std::index_sequence<L...>) {
  constexpr size_t width = sizeof...(L);
  return __builtin_shufflevector(a, b, (L & span ? width + L - span : L)...) +
         __builtin_shufflevector(a, b, (L & span ? width + L : L + span)...);
}

// Lane l of the result is the sum of all lanes of vectors[l].
template <size_t span = 1, class Vector>
inline __attribute__((always_inline)) Vector sums_of(const Vector* vectors) {
  constexpr size_t width = sizeof(Vector) / sizeof(float);
  if constexpr (2 * span == width) {
    return add_lanes<span>(vectors[0], vectors[1], std::make_index_sequence<width>());
  } else {
    Vector half[width / span / 2];
    for (size_t i = 0; i < width / span / 2; ++i) {
      half[i] =
          add_lanes<span>(vectors[2 * i], vectors[2 * i + 1], std::make_index_sequence<width>());
    }
    return sums_of<2 * span>(half);
  }
}

// A piece of the columns of one group of pool rows; pair p is data row p / pool_rows. The sums of
// the pieces before it are in `carried`, where all but the last piece leave them again.
template <int64_t pool_rows, size_t... P>
inline __attribute__((always_inline)) void sum_group(const Differences& work, int64_t first,
                                                     Columns columns, float* carried,
                                                     std::index_sequence<P...>) {
  using Vector = typename Lanes::Vector;
  constexpr int64_t width = Lanes::width;
  constexpr int64_t data_rows = sizeof...(P) / pool_rows;
  const float* x[data_rows];
  const float* y[pool_rows];
  for (int64_t i = 0; i < data_rows; ++i) x[i] = work.data[i];
  for (int64_t j = 0; j < pool_rows; ++j) {
    y[j] = work.pool + std::min(first + j, work.pool_rows - 1) * work.pool_stride;
  }
  Vector sums[sizeof...(P)]{};
  if (columns.first > 0) ((sums[P] = Lanes::load(carried + P * width)), ...);
  int64_t k = columns.first;
  for (; k + width <= columns.last; k += width) {
    ((sums[P] = Lanes::add_square(
          sums[P], Lanes::load(x[P / pool_rows] + k) - Lanes::load(y[P % pool_rows] + k))),
     ...);
  }
  if (columns.last < work.columns) {
    (std::memcpy(carried + P * width, &sums[P], sizeof(Vector)), ...);
    return;
  }
  if (const int64_t rest = columns.last - k) {
    ((sums[P] = Lanes::add_square(sums[P], Lanes::load(x[P / pool_rows] + k, rest) -
                                               Lanes::load(y[P % pool_rows] + k, rest))),
     ...);
  }
  for (int64_t v = 0; v < static_cast<int64_t>(sizeof...(P)) / width; ++v) {
    const Vector totals = sums_of(sums + v * width);
    constexpr int64_t run = std::min(pool_rows, width);
    for (int64_t l = 0; l < width; l += run) {
      const int64_t pair = v * width + l;
      std::memcpy(work.sums + pair / pool_rows * work.sums_stride + first + pair % pool_rows,
                  reinterpret_cast<const float*>(&totals) + l, run * sizeof(float));
    }
  }
}

template <int64_t data_rows>
inline __attribute__((always_inline)) void sum_rows(const Differences& work) {
  constexpr int64_t pool_rows = Lanes::pairs / data_rows;
  for (int64_t k = 0; k < work.columns; k += difference_columns) {
    float* carried = work.carried;
    const Columns columns{k, std::min(k + difference_columns, work.columns)};
    for (int64_t first = 0; first < work.pool_rows; first += pool_rows) {
      sum_group<pool_rows>(work, first, columns, carried, std::make_index_sequence<Lanes::pairs>());
      carried += Lanes::pairs * Lanes::width;
    }
  }
}

void sum_differences(const Differences& work) {
  if (work.data_rows == 1) return sum_rows<1>(work);
  if (work.data_rows == 2) return sum_rows<2>(work);
  sum_rows<Lanes::pairs / 4>(work);
}

// The lanes of a vector of sixteen that belong to the values before `count`.
inline __attribute__((always_inline)) Ints lanes_before(int64_t count) {
  constexpr Ints lane{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return lane < static_cast<int32_t>(std::min<int64_t>(count, 16));
}

float least_above(const float* values, int64_t count, float above) {
  const Floats none = Floats{} + std::numeric_limits<float>::infinity();
  Floats least = none;
  for (int64_t i = 0; i < count; i += 16) {
    const Floats value = load<Floats>(values + i);
    const Floats allowed = ((value > above) & lanes_before(count - i)) ? value : none;
    least = allowed < least ? allowed : least;
  }
  float result = least[0];
  for (int64_t l = 1; l < 16; ++l) result = std::min(result, least[l]);
  return result;
}

int64_t find_at_most(const float* values, int64_t count, float limit, int32_t* positions) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += 16) {
    const Floats value = load<Floats>(values + i);
    const Ints beyond = (value > limit) & (value < std::numeric_limits<float>::infinity());
    for (uint32_t hit = Lanes::bits(~beyond & lanes_before(count - i)); hit != 0; hit &= hit - 1) {
      positions[found++] = static_cast<int32_t>(i) + std::countr_zero(hit);
    }
  }
  return found;
}
