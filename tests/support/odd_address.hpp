// Tensors in places that no allocator gives them.
#pragma once

#include <ATen/ops/cat.h>
#include <torch/types.h>

namespace lorapp::test {

/// The same values, contiguous, one element behind an aligned address.
inline torch::Tensor at_odd_address(const torch::Tensor& x) {
  return torch::cat({x.new_zeros({1}), x.reshape({-1})}).slice(0, 1).view(x.sizes());
}

}  // namespace lorapp::test
