// Activation checkpointing: keep inputs, and compute what is made of them again in the backward
// pass; one tensor (Activation) or a whole block (checkpoint).
// The gradients are the same bits as without it, for a block's parameters as for its input.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/ops.hpp>

#include <torch/types.h>

#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace lorapp {

/// A tensor to be read by layers, whose graphs keep it, or with a recipe make it again.
struct Activation {
  Activation(torch::Tensor kept) : value(std::move(kept)) {}  // NOLINT: implicit

  /// What `how` makes. Where that needs no gradient, no graph keeps its inputs: it is kept itself.
  explicit Activation(Recipe how) : value(how.make(how.inputs)) {
    if (value.requires_grad()) recipe = std::move(how);
  }

  torch::Tensor value;
  std::optional<Recipe> recipe = {};
};

/// block(x), whose graph is built only in the backward pass (Chen et al. 2016, "Training Deep Nets
/// with Sublinear Memory Cost"). `parameters` are the trainable tensors that the block reads
/// besides x; they may receive gradients even where x needs none. `block` is called once now, with
/// gradients off, and once in every backward pass; it must compute the same both times, dropout
/// masks included, and must keep alive whatever it refers to. One tensor in, one out. Second
/// derivatives are an Error.
LORAPP_API torch::Tensor checkpoint(std::function<torch::Tensor(const torch::Tensor&)> block,
                                    const torch::Tensor& x,
                                    const std::vector<torch::Tensor>& parameters);

}  // namespace lorapp
