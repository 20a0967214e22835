// How a kernel asks for threads without knowing who owns them.
#pragma once

#include <cstdint>
#include <functional>

namespace naign {

struct Parallel {
  int64_t threads;
  // Calls the function once for each of 0, 1, ..., tasks - 1, on up to `threads` threads.
  std::function<void(int64_t tasks, const std::function<void(int64_t)>&)> run;
};

}  // namespace naign
