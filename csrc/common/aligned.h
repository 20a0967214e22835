#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <new>

namespace naign::cpu {

constexpr size_t alignment = 64;

struct AlignedDelete {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(alignment)); }
};

// Zeroed array on a cache line's boundary; T is a plain number.
template <class T>
using AlignedArray = std::unique_ptr<T[], AlignedDelete>;

template <class T>
AlignedArray<T> aligned_array(size_t count) {
  const size_t bytes = (count * sizeof(T) / alignment + 1) * alignment;
  void* memory = ::operator new(bytes, std::align_val_t(alignment));
  std::memset(memory, 0, bytes);
  return AlignedArray<T>(static_cast<T*>(memory));
}

// Uninitialised, 64-byte aligned numbers; a few of them without an allocation, which would take
// longer than a small search.
template <class T, size_t few>
class Scratch {
 public:
  explicit Scratch(size_t count) {
    if (count > few) heap_ = aligned_array<T>(count);
  }
  T* get() { return heap_ ? heap_.get() : own_; }

 private:
  alignas(64) T own_[few];
  AlignedArray<T> heap_;
};

}  // namespace naign::cpu
