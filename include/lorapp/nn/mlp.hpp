// Mlp: the SwiGLU feed-forward block, down(silu(gate(x)) · up(x)).
// Shazeer 2020, "GLU Variants Improve Transformer".
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/checkpointing.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/model_config.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <vector>

namespace lorapp {

namespace detail {

/// The rule, of LibTorch's operations: any dtype, device and strides.
inline torch::Tensor composed_swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  return at::silu(gate) * up;
}

}  // namespace detail

/// silu(gate) · up, element by element. Contiguous operands on the CPU, or a GPU with kernels, go
/// through one kernel, which keeps nothing but them and can be differentiated once; on a GPU those
/// of stacked_linear_4bit, [T, …], do as well.
LORAPP_API torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up);

/// How swiglu(gate, up) is made again.
inline Recipe swiglu_recipe(const torch::Tensor& gate, const torch::Tensor& up) {
  return {{gate, up},
          [](const std::vector<torch::Tensor>& inputs) { return swiglu(inputs[0], inputs[1]); }};
}

class LORAPP_API MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const ModelConfig& config)
      : gate_proj(config.hidden_size, config.intermediate_size),
        up_proj(config.hidden_size, config.intermediate_size),
        down_proj(config.intermediate_size, config.hidden_size) {
    register_module("gate_proj", gate_proj);
    register_module("up_proj", up_proj);
    register_module("down_proj", down_proj);
  }

  /// x [T, hidden] → [T, hidden]. `selective`: see CheckpointingMode.
  torch::Tensor forward(const Activation& x, bool selective = false) {
    return down_proj(inner(x, selective));
  }

  /// residual + forward(x, selective).
  torch::Tensor forward_onto(const torch::Tensor& residual,
                             const Activation& x,
                             bool selective = false) {
    return down_proj->forward_onto(residual, inner(x, selective));
  }

  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;

 private:
  // What down_proj reads.
  Activation inner(const Activation& x, bool selective) {
    const auto both = LinearImpl::forward_each({gate_proj.get(), up_proj.get()}, x);
    const torch::Tensor &gate = both[0], &up = both[1];
    return selective ? Activation(swiglu_recipe(gate, up)) : swiglu(gate, up);
  }
};
TORCH_MODULE(Mlp);

}  // namespace lorapp
