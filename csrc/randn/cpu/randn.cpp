// Normal numbers on the CPU: pieces of the rows' counters, on any number of threads.
#include "randn/randn.h"

#include <algorithm>

#include "common/cpu_features.h"
#include "randn/cpu/kernels.h"

namespace naign::cpu {
namespace {

RandnLoop loop() {
  return with_isa(isa(), [](auto set) -> RandnLoop { return randn<set()>; });
}

// Some microseconds of work: less would not pay for a thread.
constexpr int64_t counters_at_once = 1 << 13;

}  // namespace

void randn(const Randn& work, const Parallel& parallel) {
  const int64_t counters = work.count * work.groups();
  const int64_t pieces = (counters + counters_at_once - 1) / counters_at_once;
  parallel.run(pieces, [&, fill = loop()](int64_t piece) {
    const int64_t begin = piece * counters_at_once;
    fill(work, begin, std::min(begin + counters_at_once, counters));
  });
}

}  // namespace naign::cpu
