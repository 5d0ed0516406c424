// Mlp: the SwiGLU feed-forward block, down(silu(gate(x)) · up(x)).
// Shazeer 2020, "GLU Variants Improve Transformer".
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/model_config.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

namespace lorapp {

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

  /// x [T, hidden] → [T, hidden].
  torch::Tensor forward(const torch::Tensor& x) {
    return down_proj(at::silu(gate_proj(x)) * up_proj(x));
  }

  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;
};
TORCH_MODULE(Mlp);

}  // namespace lorapp
