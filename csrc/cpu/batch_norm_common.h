// The loops of batch normalisation in the compiler's own vectors. Each instruction set's source
// file includes this inside its own target region and namespace, after saying how many floats and
// how many doubles make a vector (`width`, `doubles`).
//
// Included several times on purpose: no include guard.

using Floats = float __attribute__((vector_size(width * 4)));
using Few = float __attribute__((vector_size(doubles * 4)));
using Doubles = double __attribute__((vector_size(doubles * 8)));

template <class Vector>
inline __attribute__((always_inline)) Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

inline __attribute__((always_inline)) Doubles widened(Few values) {
  return __builtin_convertvector(values, Doubles);
}

// Channels innermost: adds `rows` neighbouring rows, from `row` on, to the sums of a vector of
// channels.
template <bool with_gradient, int rows>
inline __attribute__((always_inline)) void add_rows(const BatchNormSums& work, int64_t row,
                                                    int64_t channel) {
  const int64_t channels = work.shape.channels;
  double* sums = work.sums + channel;
  const Doubles centre = widened(load<Few>(work.centre + channel));
  Doubles first = load<Doubles>(sums);
  Doubles second = load<Doubles>(sums + channels);
  for (int r = 0; r < rows; ++r) {
    const int64_t at = (row + r) * channels + channel;
    const Doubles deviation = widened(load<Few>(work.x + at)) - centre;
    Doubles value = deviation;
    if constexpr (with_gradient) value = widened(load<Few>(work.gradient + at));
    first += value;
    second += value * deviation;
  }
  std::memcpy(sums, &first, sizeof(first));
  std::memcpy(sums + channels, &second, sizeof(second));
}

// Memory is read in its order; the sums stay in the nearest cache.
template <bool with_gradient>
void sum_whole_vectors(const BatchNormSums& work, int64_t begin, int64_t end) {
  constexpr int together = 4;
  const BatchNormSums local = work;  // so that no store to `sums` seems to change it
  const int64_t channels = local.shape.channels;
  const int64_t outer = local.shape.outer;
  std::fill(local.sums + begin, local.sums + end, 0.0);
  std::fill(local.sums + channels + begin, local.sums + channels + end, 0.0);
  int64_t row = 0;
  for (; row + together <= outer; row += together) {
    for (int64_t c = begin; c < end; c += doubles) add_rows<with_gradient, together>(local, row, c);
  }
  for (; row < outer; ++row) {
    for (int64_t c = begin; c < end; c += doubles) add_rows<with_gradient, 1>(local, row, c);
  }
}

template <bool with_gradient>
void sum_column(const BatchNormSums& work, int64_t channel) {
  const double centre = work.centre[channel];
  double first = 0;
  double second = 0;
  for (int64_t row = 0; row < work.shape.outer; ++row) {
    const int64_t at = row * work.shape.channels + channel;
    const double deviation = work.x[at] - centre;
    const double value = with_gradient ? work.gradient[at] : deviation;
    first += value;
    second += value * deviation;
  }
  work.sums[channel] = first;
  work.sums[work.shape.channels + channel] = second;
}

struct Lanes {
  Doubles of[norm_lanes / doubles];

  void add(int64_t lane, double value) { of[lane / doubles][lane % doubles] += value; }

  double total() const {
    double sum = 0;
    for (int64_t lane = 0; lane < norm_lanes; ++lane) sum += of[lane / doubles][lane % doubles];
    return sum;
  }
};

// Channels outermost but one: strips of `inner` neighbouring elements, one strip after the other.
template <bool with_gradient>
void sum_strips(const BatchNormSums& work, int64_t channel) {
  const auto [outer, channels, inner] = work.shape;
  const double centre = work.centre[channel];
  const int64_t whole = inner - inner % norm_lanes;
  Lanes first = {};
  Lanes second = {};
  for (int64_t row = 0; row < outer; ++row) {
    const int64_t strip = (row * channels + channel) * inner;
    for (int64_t i = 0; i < whole; i += norm_lanes) {
      for (int64_t k = 0; k < norm_lanes / doubles; ++k) {
        const int64_t at = strip + i + k * doubles;
        const Doubles deviation = widened(load<Few>(work.x + at)) - centre;
        Doubles value = deviation;
        if constexpr (with_gradient) value = widened(load<Few>(work.gradient + at));
        first.of[k] += value;
        second.of[k] += value * deviation;
      }
    }
    for (int64_t i = whole; i < inner; ++i) {
      const double deviation = work.x[strip + i] - centre;
      const double value = with_gradient ? work.gradient[strip + i] : deviation;
      first.add(i - whole, value);
      second.add(i - whole, value * deviation);
    }
  }
  work.sums[channel] = first.total();
  work.sums[channels + channel] = second.total();
}

template <bool with_gradient>
void sum_channels(const BatchNormSums& work, int64_t begin, int64_t end) {
  if (work.shape.inner != 1) {
    for (int64_t c = begin; c < end; ++c) sum_strips<with_gradient>(work, c);
    return;
  }
  const int64_t whole = end - (end - begin) % doubles;
  sum_whole_vectors<with_gradient>(work, begin, whole);
  for (int64_t c = whole; c < end; ++c) sum_column<with_gradient>(work, c);
}

void sums_loop(const BatchNormSums& work, int64_t begin, int64_t end) {
  work.gradient == nullptr ? sum_channels<false>(work, begin, end)
                           : sum_channels<true>(work, begin, end);
}

// One element or a vector of them, with coefficients of one channel or of as many.
template <bool with_gradient, class Values, class Coefficient>
inline __attribute__((always_inline)) Values mapped(Values x, Values gradient, Coefficient centre,
                                                    Coefficient slope, Coefficient offset,
                                                    Coefficient gradient_slope) {
  const Values straight = (x - centre) * slope + offset;
  if constexpr (with_gradient) return straight + gradient * gradient_slope;
  return straight;
}

template <bool with_gradient, class Values>
inline __attribute__((always_inline)) void map_channels(const BatchNormMap& work, int64_t at,
                                                        int64_t channel) {
  Values gradient = {};
  Values gradient_slope = {};
  if constexpr (with_gradient) {
    gradient = load<Values>(work.gradient + at);
    gradient_slope = load<Values>(work.gradient_slope + channel);
  }
  const Values out = mapped<with_gradient>(
      load<Values>(work.x + at), gradient, load<Values>(work.centre + channel),
      load<Values>(work.slope + channel), load<Values>(work.offset + channel), gradient_slope);
  std::memcpy(work.out + at, &out, sizeof(out));
}

template <bool with_gradient>
void map_rows(const BatchNormMap& work, int64_t begin, int64_t end) {
  const int64_t channels = work.shape.channels;
  const int64_t whole = channels - channels % width;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * channels;
    for (int64_t c = 0; c < whole; c += width) {
      map_channels<with_gradient, Floats>(work, first + c, c);
    }
    for (int64_t c = whole; c < channels; ++c)
      map_channels<with_gradient, float>(work, first + c, c);
  }
}

template <bool with_gradient, class Values>
inline __attribute__((always_inline)) void map_strip(const BatchNormMap& work, int64_t at,
                                                     int64_t channel, float gradient_slope) {
  Values gradient = {};
  if constexpr (with_gradient) gradient = load<Values>(work.gradient + at);
  const Values out =
      mapped<with_gradient>(load<Values>(work.x + at), gradient, work.centre[channel],
                            work.slope[channel], work.offset[channel], gradient_slope);
  std::memcpy(work.out + at, &out, sizeof(out));
}

template <bool with_gradient>
void map_strips(const BatchNormMap& work, int64_t begin, int64_t end) {
  const BatchNormMap local = work;  // so that no store to `out` seems to change it
  const int64_t inner = local.shape.inner;
  const int64_t whole = inner - inner % width;
  for (int64_t strip = begin; strip < end; ++strip) {
    const int64_t channel = strip % local.shape.channels;
    const float gradient_slope = with_gradient ? local.gradient_slope[channel] : 0.0f;
    const int64_t first = strip * inner;
    for (int64_t i = 0; i < whole; i += width) {
      map_strip<with_gradient, Floats>(local, first + i, channel, gradient_slope);
    }
    for (int64_t i = whole; i < inner; ++i) {
      map_strip<with_gradient, float>(local, first + i, channel, gradient_slope);
    }
  }
}

template <bool with_gradient>
void map_either(const BatchNormMap& work, int64_t begin, int64_t end) {
  work.shape.inner == 1 ? map_rows<with_gradient>(work, begin, end)
                        : map_strips<with_gradient>(work, begin, end);
}

void map_loop(const BatchNormMap& work, int64_t begin, int64_t end) {
  work.gradient == nullptr ? map_either<false>(work, begin, end)
                           : map_either<true>(work, begin, end);
}

constexpr BatchNormLoops loops = {sums_loop, map_loop};
