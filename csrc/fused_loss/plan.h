// Which loop works on which terms, on every device.
//
// Terms that share tensors, directly or through others, form a group: a pass over memory takes all
// of them along. The losses of NAIGN are groups of one shape, a path through at most four tensors;
// for it there is a loop that keeps everything in registers. Any other group is worked on term by
// term, in blocks so short that what one term read or wrote is still in a cache for the next.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <vector>

#include "common/host_device.h"
#include "fused_loss/fused_loss.h"

namespace naign {

constexpr int loss_step_terms = 3;

// A tensor in a step: whether earlier steps of the group have added to its gradient, and whether
// later ones will.
struct LossOperand {
  int64_t tensor;
  bool begun;
  bool unfinished;
};

// Terms that a loop works on at once: term t compares operand t + 1 with operand 0, but the third
// one with operand 2. Which of the two is the prediction does not matter: differences and
// derivatives only change their signs.
struct LossStep {
  int terms;
  std::array<int64_t, loss_step_terms> term;
  std::array<LossOperand, loss_step_terms + 1> operands;

  NAIGN_HOST_DEVICE static constexpr int other(int term) { return term == 2 ? 2 : 0; }
};

struct LossGroup {
  int64_t elements;
  std::vector<int64_t> terms;  // ascending
  std::vector<LossStep> steps;
};

namespace detail {

// The number of each tensor's group: terms connect their tensors.
inline std::vector<int64_t> groups_of_tensors(const FusedLoss& loss) {
  std::vector<int64_t> groups(loss.tensors.size());
  std::iota(groups.begin(), groups.end(), 0);
  for (const LossTerm& term : loss.terms) {
    const int64_t kept = groups[term.prediction];
    const int64_t joined = groups[term.target];
    std::replace(groups.begin(), groups.end(), joined, kept);
  }
  return groups;
}

inline int64_t opposite(const LossTerm& term, int64_t tensor) {
  return term.prediction == tensor ? term.target : term.prediction;
}

inline LossStep step_of(std::initializer_list<int64_t> terms,
                        std::initializer_list<int64_t> tensors) {
  LossStep step{static_cast<int>(terms.size()), {}, {}};
  std::copy(terms.begin(), terms.end(), step.term.begin());
  std::transform(tensors.begin(), tensors.end(), step.operands.begin(),
                 [](int64_t tensor) { return LossOperand{tensor, false, false}; });
  return step;
}

// The terms in one step, where they form a path; no step otherwise. `middle` is the term that, of
// three, touches both others.
inline std::vector<LossStep> path_around(const FusedLoss& loss, const std::vector<int64_t>& terms,
                                         int64_t middle) {
  const int64_t begin = loss.terms[middle].target;
  const int64_t end = loss.terms[middle].prediction;
  int64_t before = -1;
  int64_t after = -1;
  for (const int64_t index : terms) {
    const LossTerm& term = loss.terms[index];
    if (index == middle) continue;
    if (touches(term, begin) == touches(term, end)) return {};
    int64_t& side = touches(term, begin) ? before : after;
    if (side >= 0) return {};
    side = index;
  }
  if (before < 0 && after < 0) return {step_of({middle}, {begin, end})};
  if (after < 0) {
    return {step_of({before, middle}, {begin, opposite(loss.terms[before], begin), end})};
  }
  const int64_t last = opposite(loss.terms[after], end);
  if (before < 0) return {step_of({after, middle}, {end, last, begin})};
  const int64_t first = opposite(loss.terms[before], begin);
  if (first == last) return {};
  return {step_of({before, middle, after}, {begin, first, end, last})};
}

// A step for each term.
inline std::vector<LossStep> single_steps(const FusedLoss& loss,
                                          const std::vector<int64_t>& terms) {
  std::vector<LossStep> steps;
  std::vector<LossOperand*> latest(loss.tensors.size(), nullptr);
  steps.reserve(terms.size());  // so that the operands stay where they are
  for (const int64_t index : terms) {
    const LossTerm& term = loss.terms[index];
    LossStep& step = steps.emplace_back(step_of({index}, {term.target, term.prediction}));
    for (int o = 0; o < 2; ++o) {
      LossOperand& operand = step.operands[o];
      LossOperand*& earlier = latest[operand.tensor];
      operand.begun = earlier != nullptr;
      if (operand.begun) earlier->unfinished = true;
      earlier = &operand;
    }
  }
  return steps;
}

inline std::vector<LossStep> steps_of(const FusedLoss& loss, const std::vector<int64_t>& terms) {
  for (const int64_t middle : terms) {
    if (terms.size() > loss_step_terms) break;
    std::vector<LossStep> path = path_around(loss, terms, middle);
    if (!path.empty()) return path;
  }
  return single_steps(loss, terms);
}

}  // namespace detail

inline std::vector<LossGroup> loss_groups(const FusedLoss& loss) {
  const std::vector<int64_t> of_tensors = detail::groups_of_tensors(loss);
  std::vector<LossGroup> groups;
  std::vector<int64_t> group_at(loss.tensors.size(), -1);
  for (size_t t = 0; t < loss.terms.size(); ++t) {
    int64_t& at = group_at[of_tensors[loss.terms[t].target]];
    if (at < 0) {
      at = static_cast<int64_t>(groups.size());
      groups.push_back({loss.elements(static_cast<int64_t>(t)), {}, {}});
      groups.back().terms.reserve(loss.terms.size() - t);
    }
    groups[at].terms.push_back(static_cast<int64_t>(t));
  }
  for (LossGroup& group : groups) group.steps = detail::steps_of(loss, group.terms);
  return groups;
}

}  // namespace naign
