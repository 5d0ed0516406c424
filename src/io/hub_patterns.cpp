// What lorapp reads of a model on the hub.
#include <lorapp/io/hub_download.hpp>

namespace lorapp {

std::vector<std::string> default_hub_patterns() {
  return {"config.json",
          "generation_config.json",
          "model*.safetensors",
          "model*.safetensors.index.json",
          "tokenizer.json",
          "tokenizer.model",
          "tokenizer_config.json",
          "special_tokens_map.json",
          "added_tokens.json",
          "vocab.json",
          "merges.txt",
          "chat_template.jinja",
          "chat_template.json",
          "adapter_config.json",
          "adapter_model.safetensors"};
}

}  // namespace lorapp
