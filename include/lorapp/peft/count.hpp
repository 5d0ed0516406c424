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

/// The number of parameters that `lora` trains in `model` (biases of the base aside): 6,815,744 for
/// r 16 on q_proj and v_proj of Mistral-7B. Targets that match nothing count nothing.
inline std::int64_t count_lora_parameters(const ModelConfig& model, const LoraConfig& lora) {
  constexpr std::string_view kWeight = ".weight";
  std::vector<std::string> paths;
  std::vector<TensorSpec> tables;  // of the same indices
  std::vector<std::size_t> embeddings;
  std::int64_t count = 0;
  std::vector<TensorSpec> tensors = expected_tensors(model);
  if (model.tie_word_embeddings) {  // a head all the same, with an adapter or a copy of its own
    tensors.push_back({"lm_head.weight", {model.vocab_size, model.hidden_size}});
  }
  for (const TensorSpec& tensor : tensors) {
    const std::string path = tensor.name.substr(0, tensor.name.rfind('.'));
    if (is_saved_whole(lora, path)) {
      std::int64_t size = 1;
      for (const std::int64_t n : tensor.shape) size *= n;
      count += size;
    }
    if (tensor.shape.size() != 2 || !tensor.name.ends_with(kWeight)) continue;
    if (path == "lm_head" || path.ends_with("embed_tokens")) embeddings.push_back(paths.size());
    paths.push_back(path);
    tables.push_back(tensor);
  }
  for (const std::size_t i : match_targets(lora, paths, embeddings).indices) {
    count += lora.rank_of(paths[i]) * (tables[i].shape[0] + tables[i].shape[1]);
    if (lora.lora_bias) count += tables[i].shape[0];
  }
  for (const auto& [name, ids] : lora.trainable_token_indices) {
    count += static_cast<std::int64_t>(ids.size()) * model.hidden_size;
  }
  return count;
}

}  // namespace lorapp
