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

inline Parallel on_this_thread() {
  return {1, [](int64_t tasks, const std::function<void(int64_t)>& task) {
            for (int64_t i = 0; i < tasks; ++i) task(i);
          }};
}

}  // namespace naign
