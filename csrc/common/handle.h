// C++ objects that live as long as an opaque tensor, so that operators can keep a state.
//
// The tensor is a few bytes on the CPU that nobody reads; its address is the key to the object.
// What is not the address of a living handle - another tensor, a copy - belongs to no object, so a
// wrong tensor is noticed whatever it holds.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <memory>

namespace naign::glue {

struct Held {
  virtual ~Held() = default;
};

// A new handle. The object dies with the handle's storage.
torch::stable::Tensor handle_of(std::unique_ptr<Held> object);

// The object of a handle, nullptr where the tensor is none.
Held* held_by(const torch::stable::Tensor& handle);

}  // namespace naign::glue
