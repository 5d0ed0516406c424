// Activation checkpointing: keep a block's input, compute the block again in the backward pass.
// The gradients are the same bits as without it, for the block's parameters as for its input.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <functional>
#include <vector>

namespace lorapp {

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
