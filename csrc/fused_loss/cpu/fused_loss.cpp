// One pass over contiguous memory: inputs are read and gradients written where they are.
#include "fused_loss/fused_loss.h"

#include <algorithm>
#include <memory>
#include <vector>

#include "common/aligned.h"
#include "common/cpu_features.h"
#include "fused_loss/cpu/kernels.h"
#include "fused_loss/plan.h"

namespace naign::cpu {
namespace {

const LossLoops& loops() {
  return with_isa(isa(), [](auto set) -> const LossLoops& { return loss_loops<set()>(); });
}

// From here on gradients bypass the caches: they would not stay there until they are read, and a
// store that allocates a line reads it first. Measured on 32 MiB of last-level cache; the size that
// sysconf tells may be that of several caches.
constexpr int64_t streamed_bytes = 24 << 20;

// Elements that several steps work on before they go on to the next ones: few enough that their
// values and unfinished gradients stay in a core's own caches, whole lanes and whole cache lines.
constexpr int64_t block = 16384;
static_assert(loss_piece % block == 0 && block % (4 * loss_lanes) == 0);

LossMemory memory_for(const FusedLoss& loss) {
  bool halves = false;
  bool aligned = true;
  int64_t bytes = 0;
  for (const LossTensor& tensor : loss.tensors) {
    halves |= tensor.dtype != Dtype::float32;
    aligned &= reinterpret_cast<uintptr_t>(tensor.gradient) % 64 == 0;
    bytes += tensor.elements * bytes_of(tensor.dtype) * (tensor.gradient == nullptr ? 1 : 2);
  }
  if (halves) return mixed;
  return aligned && bytes >= streamed_bytes ? streamed : plain;
}

// One group of the loss, and the loops for it.
struct GroupWork {
  const FusedLoss& loss;
  const LossGroup& group;
  const LossLoop (&loops)[loss_step_terms + 1];
  const std::vector<float>& slopes;

  bool in_steps() const { return group.steps.size() > 1; }
};

LossStream stream_of(const FusedLoss& loss, const LossOperand& operand, int64_t begin,
                     float* partial) {
  const LossTensor& tensor = loss.tensors[operand.tensor];
  const int64_t offset = begin * bytes_of(tensor.dtype);
  LossStream stream{static_cast<const char*>(tensor.values) + offset,
                    nullptr,
                    tensor.dtype,
                    1,
                    partial,
                    operand.begun,
                    operand.unfinished};
  if (tensor.gradient != nullptr) stream.gradient = static_cast<char*>(tensor.gradient) + offset;
  if (loss.scale != nullptr) stream.scale = *loss.scale;
  return stream;
}

// Steps on the elements from `begin` on; `partials` has a block for every tensor, if any is needed.
void work_on_block(const GroupWork& work, int64_t begin, int64_t elements, float* partials,
                   double (*sums)[loss_lanes]) {
  const bool in_steps = work.in_steps();
  for (const LossStep& step : work.group.steps) {
    LossWork now{};
    now.elements = elements;
    for (int o = 0; o <= step.terms; ++o) {
      const LossOperand& operand = step.operands[o];
      float* const partial = in_steps ? partials + operand.tensor * block : nullptr;
      now.streams[o] = stream_of(work.loss, operand, begin, partial);
    }
    for (int t = 0; t < step.terms; ++t) now.slopes[t] = work.slopes[step.term[t]];
    work.loops[in_steps ? loss_loop_in_steps : step.terms - 1](now, sums);
    sums += step.terms;
  }
}

// The sums of a piece, in the order of the steps' terms.
void work_on_piece(const GroupWork& work, int64_t piece, double* totals) {
  const int64_t end = std::min((piece + 1) * loss_piece, work.group.elements);
  const size_t rows = work.group.terms.size();
  Scratch<double, loss_step_terms * loss_lanes> lanes(rows * loss_lanes);
  std::fill_n(lanes.get(), rows * loss_lanes, 0.0);
  auto* const sums = reinterpret_cast<double (*)[loss_lanes]>(lanes.get());
  std::unique_ptr<float[]> partials;
  if (work.in_steps()) partials.reset(new float[work.loss.tensors.size() * block]);
  const int64_t step = work.in_steps() ? block : loss_piece;
  for (int64_t begin = piece * loss_piece; begin < end; begin += step) {
    work_on_block(work, begin, std::min(step, end - begin), partials.get(), sums);
  }
  for (size_t row = 0; row < rows; ++row) {
    totals[row] = 0;
    for (const double lane : sums[row]) totals[row] += lane;
  }
}

// Adds up the pieces in order.
void work_on_group(const GroupWork& work, const Parallel& parallel, std::vector<double>& terms) {
  const int64_t pieces = loss_pieces(work.group.elements);
  const int64_t rows = static_cast<int64_t>(work.group.terms.size());
  std::vector<double> totals(pieces * rows);
  parallel.run(pieces,
               [&](int64_t piece) { work_on_piece(work, piece, totals.data() + piece * rows); });
  int64_t row = 0;
  for (const LossStep& step : work.group.steps) {
    for (int t = 0; t < step.terms; ++t, ++row) {
      double& sum = terms[step.term[t]];
      for (int64_t piece = 0; piece < pieces; ++piece) sum += totals[piece * rows + row];
      sum /= static_cast<double>(work.group.elements);
    }
  }
}

}  // namespace

std::vector<double> fused_loss(const FusedLoss& loss, const Parallel& parallel) {
  std::vector<double> terms(loss.terms.size());
  std::vector<float> slopes(loss.terms.size());
  for (size_t t = 0; t < slopes.size(); ++t) slopes[t] = loss.slope(static_cast<int64_t>(t));
  const auto& table = loops()[memory_for(loss)][loss.absolute];
  for (const LossGroup& group : loss_groups(loss)) {
    if (group.elements > 0) work_on_group({loss, group, table, slopes}, parallel, terms);
  }
  return terms;
}

}  // namespace naign::cpu
