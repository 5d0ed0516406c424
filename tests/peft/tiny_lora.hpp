// What tests of adapters ask of a tiny model, and a LoRA for one.
#pragma once

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <torch/types.h>

#include <string>
#include <utility>
#include <vector>

namespace lorapp::test {

/// Of one sequence of nine tokens, without gradients.
inline torch::Tensor logits(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single({3, 17, 60, 0, 5, 9, 9, 2, 33}));
}

/// With random A and B, so that it changes what the model says.
inline LoraConfig random_lora(std::vector<std::string> targets = {"q_proj", "v_proj"},
                              std::int64_t r = 3) {
  LoraConfig config;
  config.r = r;
  config.target_modules = std::move(targets);
  config.init_lora_weights = LoraInit::random;
  return config;
}

}  // namespace lorapp::test
