// torch.set_flush_denormal(True) makes a thread round subnormal numbers to zero. What must be exact
// turns that off for as long as it runs.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "common/parallel.h"

namespace naign {

// While it lives, this thread computes with subnormal numbers as IEEE 754 says.
class KeepSubnormals {
 public:
  KeepSubnormals() : before_(read()) {
    if ((before_ & flushing) != 0) write(before_ & ~flushing);
  }
  ~KeepSubnormals() {
    if ((before_ & flushing) != 0) write(before_);
  }
  KeepSubnormals(const KeepSubnormals&) = delete;
  KeepSubnormals& operator=(const KeepSubnormals&) = delete;

 private:
#if defined(__x86_64__)
  using Word = uint32_t;
  static constexpr Word flushing = 1u << 15 | 1u << 6;  // results, operands
  static Word read() { return _mm_getcsr(); }
  static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = uint64_t;
  static constexpr Word flushing = Word{1} << 24;
  static Word read() {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word));
    return word;
  }
  static void write(Word word) { asm volatile("msr fpcr, %0" : : "r"(word)); }
#else
  using Word = uint32_t;
  static constexpr Word flushing = 0;
  static Word read() { return 0; }
  static void write(Word) {}
#endif

  Word before_;
};

// The same threads, each of which keeps subnormal numbers in its tasks.
inline Parallel keeping_subnormals(const Parallel& parallel) {
  return {parallel.threads,
          [run = parallel.run](int64_t tasks, const std::function<void(int64_t)>& task) {
            run(tasks, [&task](int64_t i) {
              const KeepSubnormals here;
              task(i);
            });
          }};
}

}  // namespace naign
