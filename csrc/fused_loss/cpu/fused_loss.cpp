// One pass over contiguous memory: inputs are read and gradients written where they are.
#include "fused_loss/fused_loss.h"

#include <algorithm>
#include <vector>

#include "common/cpu_features.h"
#include "fused_loss/cpu/kernels.h"

namespace naign::cpu {
namespace {

const LossLoops& loops() {
  return with_isa(isa(), [](auto set) -> const LossLoops& { return loss_loops<set()>(); });
}

// From here on gradients bypass the caches: they would not stay there until they are read, and a
// store that allocates a line reads it first. Measured on 32 MiB of last-level cache; the size that
// sysconf tells may be that of several caches.
constexpr int64_t streamed_bytes = 24 << 20;

LossLoop loop_for(const FusedLoss& loss) {
  bool halves = false;
  bool aligned = true;
  int terms = -1;
  for (const LossTensor* tensor :
       {&loss.data, &loss.reconstruction, &loss.matched, &loss.projected}) {
    if (tensor->values == nullptr) continue;
    halves |= tensor->dtype != Dtype::float32;
    aligned &= reinterpret_cast<uintptr_t>(tensor->gradient) % 64 == 0;
    ++terms;
  }
  const int64_t bytes = (2 * terms + 1) * loss.elements * bytes_of(Dtype::float32);
  LossMemory memory = halves ? mixed : plain;
  if (memory == plain && aligned && bytes >= streamed_bytes) memory = streamed;
  return loops()[memory][loss.absolute][terms - 1];
}

}  // namespace

void fused_loss(const FusedLoss& loss, double (&terms)[3], const Parallel& parallel) {
  std::fill_n(terms, 3, 0.0);
  if (loss.elements == 0) return;
  const double count = static_cast<double>(loss.elements);
  const float slopes[3] = {loss.slope(0), loss.slope(1), loss.slope(2)};
  const LossLoop loop = loop_for(loss);
  const int64_t pieces = loss.pieces();
  std::vector<double> sums(pieces * 3);
  parallel.run(pieces, [&](int64_t index) {
    const int64_t begin = index * loss_piece;
    loop(loss, slopes, begin, std::min(begin + loss_piece, loss.elements), sums.data() + index * 3);
  });
  for (int64_t i = 0; i < pieces * 3; ++i) terms[i % 3] += sums[i];
  for (double& value : terms) value /= count;
}

}  // namespace naign::cpu
