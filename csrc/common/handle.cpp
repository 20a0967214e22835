#define TORCH_TARGET_VERSION 0x020b000000000000

#include "common/handle.h"

#include <torch/csrc/stable/ops.h>

#include <mutex>
#include <unordered_map>

namespace naign::glue {
namespace {

constexpr int64_t handle_bytes = 8;

struct Registry {
  std::mutex mutex;
  std::unordered_map<const void*, std::unique_ptr<Held>> objects;

  // Never destroyed: tensors may outlive the library's other statics.
  static Registry& get() {
    static auto& registry = *new Registry;
    return registry;
  }
};

void forget(void* memory) {
  std::unique_ptr<Held> object;
  {
    Registry& registry = Registry::get();
    const std::lock_guard guard(registry.mutex);
    const auto found = registry.objects.find(memory);
    object = std::move(found->second);
    registry.objects.erase(found);
  }
  delete[] static_cast<char*>(memory);
}

}  // namespace

torch::stable::Tensor handle_of(std::unique_ptr<Held> object) {
  auto memory = std::make_unique<char[]>(handle_bytes);
  Registry& registry = Registry::get();
  const std::lock_guard guard(registry.mutex);
  registry.objects.emplace(memory.get(), std::move(object));
  const int64_t sizes[]{handle_bytes};
  const int64_t strides[]{1};
  return torch::stable::from_blob(memory.release(), {sizes, 1}, {strides, 1},
                                  torch::stable::Device(torch::headeronly::DeviceType::CPU),
                                  torch::headeronly::ScalarType::Byte, &forget);
}

Held* held_by(const torch::stable::Tensor& handle) {
  Registry& registry = Registry::get();
  const std::lock_guard guard(registry.mutex);
  const auto found = registry.objects.find(handle.const_data_ptr());
  return found == registry.objects.end() ? nullptr : found->second.get();
}

}  // namespace naign::glue
