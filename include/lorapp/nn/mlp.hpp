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
/// through one kernel, which keeps nothing but them and can be differentiated once.
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
    const torch::Tensor gate = gate_proj(x), up = up_proj(x);
    return down_proj(selective ? Activation(swiglu_recipe(gate, up)) : swiglu(gate, up));
  }

  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;
};
TORCH_MODULE(Mlp);

}  // namespace lorapp
