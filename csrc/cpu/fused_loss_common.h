// The loops of the fused loss in the compiler's own vectors. Each instruction set's source file
// includes this inside its own target region and namespace, after saying how many floats and how
// many doubles make a vector (`width`, `doubles`) and how a vector bypasses the caches (`stream`,
// `finish_streams`). Sums are kept apart by an element's index modulo loss_lanes, every lane is
// computed alone and no operation is fused: all instruction sets give the same bits.
//
// Included several times on purpose: no include guard.

using Floats = float __attribute__((vector_size(width * 4)));
using Words = uint32_t __attribute__((vector_size(width * 4)));
using Ints = int32_t __attribute__((vector_size(width * 4)));
using LongWords = uint64_t __attribute__((vector_size(width * 8)));
using Few = float __attribute__((vector_size(doubles * 4)));
using Doubles = double __attribute__((vector_size(doubles * 8)));

constexpr int64_t lanes = loss_lanes;
constexpr int64_t pairs = lanes / (2 * width);

// One for each lane.
struct Sums {
  Doubles of[pairs][2][width / doubles];
};

template <class Vector>
inline __attribute__((always_inline)) Vector load(const void* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <class Vector>
inline __attribute__((always_inline)) void store(void* to, Vector vector) {
  std::memcpy(to, &vector, sizeof(vector));
}

// Magnitudes are compared as signed numbers, which needs no second instruction anywhere.
inline __attribute__((always_inline)) Floats widen_half(Words half) {
  const Words magnitude = (half & 0x7fffu) << 13;
  // Moving the exponent by a multiplication with 2^112 makes subnormals right as well.
  const Words moved = (Words)((Floats)magnitude * 0x1p112f);
  const Words special = (Words)((Ints)magnitude > 0x0f7fffff) & 0x7f800000u;
  return (Floats)(moved | special | (half & 0x8000u) << 16);
}

// To nearest even. Subnormal results are rounded by adding in float32, where the last kept bit is
// the last there is.
inline __attribute__((always_inline)) Words narrow_half(Floats value) {
  const Words bits = (Words)value;
  const Words magnitude = bits & 0x7fffffffu;
  const Words subnormal = (Words)((Floats)magnitude + 0.5f) - 0x3f000000u;
  const Words normal = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  const Words finite = (Ints)magnitude < 0x38800000 ? subnormal : normal;
  const Words special = ((Words)((Ints)magnitude > 0x7f800000) & 0x200u) | 0x7c00u;
  return (bits >> 16 & 0x8000u) | ((Ints)magnitude > 0x477fffff ? special : finite);
}

// To nearest even, in the upper half of each word; the lower half is left as it comes.
inline __attribute__((always_inline)) Words narrow_bfloat(Floats value) {
  const Words bits = (Words)value;
  const Words rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  return value == value ? rounded : bits | 0x400000u;
}

constexpr uint32_t lower = 0xffffu;
constexpr uint32_t upper = 0xffff0000u;

// 2 * width neighbouring elements: the first and the last width where all tensors are float32;
// otherwise those of even and of odd index, since halves come apart so without a shuffle.
struct Pair {
  Floats of[2];
};

template <LossMemory memory>
inline __attribute__((always_inline)) Pair read(const LossTensor& tensor, int64_t at) {
  const char* from = static_cast<const char*>(tensor.values) + at * bytes_of(tensor.dtype);
  if constexpr (memory != mixed) {
    return {{load<Floats>(from), load<Floats>(from + sizeof(Floats))}};
  } else if (tensor.dtype == Dtype::float32) {
    const auto both = load<LongWords>(from);
    return {{(Floats) __builtin_convertvector(both, Words),
             (Floats) __builtin_convertvector(both >> 32, Words)}};
  } else {
    const auto both = load<Words>(from);
    if (tensor.dtype == Dtype::bfloat16) return {{(Floats)(both << 16), (Floats)(both & upper)}};
    return {{widen_half(both & lower), widen_half(both >> 16)}};
  }
}

template <LossMemory memory>
inline __attribute__((always_inline)) void write(const LossTensor& tensor, int64_t at,
                                                 const Pair& pair) {
  char* to = static_cast<char*>(tensor.gradient) + at * bytes_of(tensor.dtype);
  const Floats a = pair.of[0];
  const Floats b = pair.of[1];
  if constexpr (memory == streamed) {
    stream(to, a);
    stream(to + sizeof(Floats), b);
  } else if constexpr (memory == plain) {
    store(to, a);
    store(to + sizeof(Floats), b);
  } else if (tensor.dtype == Dtype::float32) {
    store(to, __builtin_convertvector((Words)a, LongWords) |
                  __builtin_convertvector((Words)b, LongWords) << 32);
  } else if (tensor.dtype == Dtype::bfloat16) {
    store(to, narrow_bfloat(a) >> 16 | (narrow_bfloat(b) & upper));
  } else {
    store(to, narrow_half(a) | narrow_half(b) << 16);
  }
}

template <bool absolute>
inline __attribute__((always_inline)) void add_penalty(Floats difference,
                                                       Doubles (&sums)[width / doubles]) {
  if constexpr (absolute) difference = (Floats)((Words)difference & 0x7fffffffu);
  for (int64_t i = 0; i < width / doubles; ++i) {
    const auto few = load<Few>(reinterpret_cast<const char*>(&difference) + i * sizeof(Few));
    const Doubles wide = __builtin_convertvector(few, Doubles);
    sums[i] += absolute ? wide : wide * wide;
  }
}

// slope * sign(difference), NaN where the difference is NaN; slope * difference for the square.
template <bool absolute>
inline __attribute__((always_inline)) Floats derivative(Floats difference, float slope) {
  if constexpr (absolute) {
    const Floats sign = __builtin_convertvector((difference < 0) - (difference > 0), Floats);
    return difference == difference ? slope * sign : difference;
  } else {
    return slope * difference;
  }
}

// Adds to the sums of one pair and returns the derivatives.
template <bool absolute>
inline __attribute__((always_inline)) Pair term(const Pair& a, const Pair& b, float slope,
                                                Doubles (&sums)[2][width / doubles]) {
  Pair derivatives;
  for (int h = 0; h < 2; ++h) {
    const Floats difference = a.of[h] - b.of[h];
    add_penalty<absolute>(difference, sums[h]);
    derivatives.of[h] = derivative<absolute>(difference, slope);
  }
  return derivatives;
}

template <LossMemory memory, bool absolute, int terms>
inline __attribute__((always_inline)) void step(const FusedLoss& loss, const float (&slopes)[3],
                                                int64_t at, Sums (&sums)[terms]) {
  for (int64_t p = 0; p < pairs; ++p, at += 2 * width) {
    const Pair x = read<memory>(loss.data, at);
    const Pair r = read<memory>(loss.reconstruction, at);
    write<memory>(loss.reconstruction, at, term<absolute>(r, x, slopes[0], sums[0].of[p]));
    if constexpr (terms > 1) {
      const Pair m = read<memory>(loss.matched, at);
      Pair gradient = term<absolute>(m, x, slopes[1], sums[1].of[p]);
      if constexpr (terms > 2) {
        const Pair q = read<memory>(loss.projected, at);
        const Pair outer = term<absolute>(q, m, slopes[2], sums[2].of[p]);
        write<memory>(loss.projected, at, outer);
        for (int h = 0; h < 2; ++h) gradient.of[h] -= outer.of[h];
      }
      write<memory>(loss.matched, at, gradient);
    }
  }
}

// The lanes in order of the elements' indices, one after the other.
template <LossMemory memory>
double total(const Sums& sums) {
  double sum = 0;
  for (int64_t lane = 0; lane < lanes; ++lane) {
    const int64_t within = lane % (2 * width);
    const int64_t half = memory == mixed ? within % 2 : within / width;
    const int64_t element = memory == mixed ? within / 2 : within % width;
    sum += sums.of[lane / (2 * width)][half][element / doubles][element % doubles];
  }
  return sum;
}

// Fewer than 16 elements, padded: zeros add nothing to any sum.
template <LossMemory memory, bool absolute, int terms>
void last_step(const FusedLoss& loss, const float (&slopes)[3], int64_t begin, int64_t end,
               Sums (&sums)[terms]) {
  alignas(64) char values[4][lanes * sizeof(float)] = {};
  alignas(64) char gradients[4][lanes * sizeof(float)];
  FusedLoss padded = loss;
  LossTensor* tensors[] = {&padded.data, &padded.reconstruction, &padded.matched,
                           &padded.projected};
  for (int t = 0; t <= terms; ++t) {
    const int64_t size = bytes_of(tensors[t]->dtype);
    std::memcpy(values[t], static_cast<const char*>(tensors[t]->values) + begin * size,
                (end - begin) * size);
    tensors[t]->values = values[t];
    tensors[t]->gradient = gradients[t];
  }
  constexpr LossMemory padded_memory = memory == mixed ? memory : plain;
  step<padded_memory, absolute, terms>(padded, slopes, 0, sums);
  const LossTensor* whole[] = {&loss.data, &loss.reconstruction, &loss.matched, &loss.projected};
  for (int t = 1; t <= terms; ++t) {
    const int64_t size = bytes_of(whole[t]->dtype);
    std::memcpy(static_cast<char*>(whole[t]->gradient) + begin * size, gradients[t],
                (end - begin) * size);
  }
}

template <LossMemory memory, bool absolute, int terms>
void loop(const FusedLoss& loss, const float (&slopes)[3], int64_t begin, int64_t end,
          double* out) {
  // Copies, so that no store to a gradient seems to change them.
  const FusedLoss local = loss;
  const float slope[3] = {slopes[0], slopes[1], slopes[2]};
  Sums sums[terms] = {};
  const int64_t whole = end - (end - begin) % lanes;
  for (int64_t at = begin; at < whole; at += lanes) {
    step<memory, absolute, terms>(local, slope, at, sums);
  }
  if (whole < end) last_step<memory, absolute, terms>(local, slope, whole, end, sums);
  if constexpr (memory == streamed) finish_streams();
  for (int t = 0; t < terms; ++t) out[t] = total<memory>(sums[t]);
}

constexpr LossLoops loops{
    {{loop<plain, false, 1>, loop<plain, false, 2>, loop<plain, false, 3>},
     {loop<plain, true, 1>, loop<plain, true, 2>, loop<plain, true, 3>}},
    {{loop<streamed, false, 1>, loop<streamed, false, 2>, loop<streamed, false, 3>},
     {loop<streamed, true, 1>, loop<streamed, true, 2>, loop<streamed, true, 3>}},
    {{loop<mixed, false, 1>, loop<mixed, false, 2>, loop<mixed, false, 3>},
     {loop<mixed, true, 1>, loop<mixed, true, 2>, loop<mixed, true, 3>}}};
