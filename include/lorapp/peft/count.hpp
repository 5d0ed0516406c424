// count_lora_parameters: the size of an adapter before any model is loaded.
// Counted from config.json alone: A is [r, in] and B [out, r] for every layer that is adapted.
#pragma once

#include <lorapp/nn/model_config.hpp>
#include <lorapp/peft/lora_config.hpp>
#include <lorapp/peft/module_pattern.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// The number of parameters of the adapters that `lora` means in `model` (biases aside): 6,815,744
/// for r 16 on q_proj and v_proj of Mistral-7B. Targets that match nothing count nothing.
inline std::int64_t count_lora_parameters(const ModelConfig& model, const LoraConfig& lora) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<std::string> paths;
  std::vector<std::int64_t> in_plus_out;
  std::ptrdiff_t head = -1;
  for (const TensorSpec& tensor : expected_tensors(model)) {
    const bool is_linear = tensor.shape.size() == 2 && tensor.name.ends_with(kWeight) &&
                           !tensor.name.ends_with("embed_tokens.weight");
    if (!is_linear) continue;
    paths.push_back(tensor.name.substr(0, tensor.name.size() - kWeight.size()));
    in_plus_out.push_back(tensor.shape[0] + tensor.shape[1]);
    if (paths.back() == "lm_head") head = static_cast<std::ptrdiff_t>(paths.size()) - 1;
  }
  std::int64_t count = 0;
  for (const std::size_t i : match_targets(lora, paths, head).indices) {
    count += lora.rank_of(paths[i]) * in_plus_out[i];
  }
  return count;
}

}  // namespace lorapp
