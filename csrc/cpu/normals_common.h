// The loop that fills rows with normal numbers, in the compiler's own vectors. Each instruction
// set's source file includes this inside its own target region and namespace, after saying how many
// floats make a vector (`width`) and how the lower halves of 64-bit lanes are multiplied
// (`product`) and square roots are taken (`square_root`).
//
// Included several times on purpose: no include guard.

using Ints = int32_t __attribute__((vector_size(width * 4)));

inline Floats to_floats(Ints numbers) { return __builtin_convertvector(numbers, Floats); }
inline Words as_words(Floats values) { return (Words)values; }
inline Words as_words(Ints numbers) { return (Words)numbers; }
inline Ints as_ints(Words words) { return (Ints)words; }
inline Floats as_floats(Words words) { return (Floats)words; }

#include "naign/normals_arithmetic.h"

constexpr int64_t tile = 64;
static_assert(tile % width == 0);

// Of each counter of a tile: the parts that differ, and all ones, or zeros where the row is
// negative.
struct Counters {
  alignas(64) uint32_t low[tile];
  alignas(64) uint32_t high[tile];
  alignas(64) uint32_t group[tile];
  alignas(64) uint32_t keep[tile];

  void set(int64_t at, int64_t row, int64_t number) {
    low[at] = static_cast<uint32_t>(row);
    high[at] = static_cast<uint32_t>(row >> 32);
    group[at] = static_cast<uint32_t>(number);
    keep[at] = row < 0 ? 0 : ~0u;
  }
};

// Part of a row: counters [begin, end) of a tile are groups `group`, group + 1, ... of a row.
struct Piece {
  int64_t row;
  int64_t group;
  int64_t begin;
  int64_t end;
};

template <class Take>
inline void for_each_piece(const Normals& work, int64_t first, int64_t count, const Take& take) {
  const int64_t groups = work.groups();
  Piece piece{first / groups, first % groups, 0, 0};
  for (; piece.begin < count; piece = {piece.row + 1, 0, piece.end, 0}) {
    piece.end = std::min(count, piece.begin + groups - piece.group);
    take(piece);
  }
}

inline void count_up(const Normals& work, int64_t first, int64_t count, Counters& counters) {
  if (work.columns <= 4) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t row = first + i;
      counters.set(i, work.rows == nullptr ? work.first + row : work.rows[row], 0);
    }
    return;
  }
  for_each_piece(work, first, count, [&](const Piece& piece) {
    const int64_t row = work.rows == nullptr ? work.first + piece.row : work.rows[piece.row];
    for (int64_t i = piece.begin; i < piece.end; ++i) {
      counters.set(i, row, piece.group + i - piece.begin);
    }
  });
}

template <class Vector>
inline __attribute__((always_inline)) Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

// The lower halves of both, alternating.
inline __attribute__((always_inline)) Words joined(LongWords even, LongWords odd) {
  return (Words)((even & 0xffffffffu) | odd << 32);
}

// Lanes of a and b alternating, from lane `from` of each.
template <int64_t from, class Vector, size_t... L>
inline __attribute__((always_inline)) Vector woven(Vector a, Vector b, std::index_sequence<L...>) {
  constexpr int64_t lanes = sizeof...(L);
  return __builtin_shufflevector(a, b, (L % 2 * lanes + L / 2 + from)...);
}

template <class Vector>
inline __attribute__((always_inline)) void weave(Vector& a, Vector& b) {
  constexpr size_t lanes = sizeof(Vector) / sizeof(a[0]);
  const Vector low = woven<0>(a, b, std::make_index_sequence<lanes>());
  b = woven<lanes / 2>(a, b, std::make_index_sequence<lanes>());
  a = low;
}

// 2 * pairs columns of each counter, one counter after the other.
template <int pairs>
inline __attribute__((always_inline)) void fill_vector(const Normals& work,
                                                       const Counters& counters, int64_t at,
                                                       float* to) {
  const auto low = load<LongWords>(counters.low + at);
  const auto high = load<LongWords>(counters.high + at);
  const auto group = load<LongWords>(counters.group + at);
  const auto keep = load<Words>(counters.keep + at);
  const uint32_t key_low = static_cast<uint32_t>(work.seed);
  const uint32_t key_high = static_cast<uint32_t>(work.seed >> 32);
  Philox halves[2] = {{{low, high, group, LongWords{}}},
                      {{low >> 32, high >> 32, group >> 32, LongWords{}}}};
  philox(halves, key_low, key_high);
  const auto& [even, odd] = halves;
  LongWords z[2 * pairs];
  for (int pair = 0; pair < pairs; ++pair) {
    const NormalPair both = normal_pair(joined(even.of[2 * pair], odd.of[2 * pair]),
                                        joined(even.of[2 * pair + 1], odd.of[2 * pair + 1]));
    Words x = as_words(work.scale * both.of[0]) & keep;
    Words y = as_words(work.scale * both.of[1]) & keep;
    weave(x, y);
    z[pair] = (LongWords)x;
    z[pairs + pair] = (LongWords)y;
  }
  if constexpr (pairs == 2) {
    weave(z[0], z[1]);
    weave(z[2], z[3]);
  }
  std::memcpy(to, z, sizeof(z));
}

template <int pairs>
inline void fill_tile(const Normals& work, const Counters& counters, float* to) {
  for (int64_t at = 0; at < tile; at += width) {
    fill_vector<pairs>(work, counters, at, to + 2 * pairs * at);
  }
}

// From a tile's counters, `each` columns for each of them, to where their rows have room for them.
template <int each>
inline void put(const Normals& work, int64_t first, int64_t count, const float* from) {
  if (work.columns % each == 0) {
    std::memcpy(work.out + first * each, from, count * each * sizeof(float));
  } else if (work.columns < each) {
    float* to = work.out + first * work.columns;
    for (int64_t i = 0; i < count; ++i, to += work.columns) {
      for (int64_t k = 0; k < work.columns; ++k) to[k] = from[i * each + k];
    }
  } else {
    for_each_piece(work, first, count, [&](const Piece& piece) {
      const int64_t column = piece.group * each;
      const int64_t columns = std::min((piece.end - piece.begin) * each, work.columns - column);
      std::memcpy(work.out + piece.row * work.columns + column, from + piece.begin * each,
                  columns * sizeof(float));
    });
  }
}

template <int pairs>
void fill(const Normals& work, int64_t begin, int64_t end) {
  constexpr int each = 2 * pairs;
  const Normals local = work;  // so that no store to `out` seems to change it
  Counters counters{};
  alignas(64) float numbers[tile * each];
  for (int64_t first = begin; first < end; first += tile) {
    const int64_t count = std::min(tile, end - first);
    count_up(local, first, count, counters);
    const bool in_place = count == tile && local.columns % each == 0;
    fill_tile<pairs>(local, counters, in_place ? local.out + first * each : numbers);
    if (!in_place) put<each>(local, first, count, numbers);
  }
}

void normals_loop(const Normals& work, int64_t begin, int64_t end) {
  if (work.columns <= 2) return fill<1>(work, begin, end);
  fill<2>(work, begin, end);
}
