// The families, and what their fields may be.
#include "nn/architectures.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace lorapp::detail {

namespace {

constexpr std::array<Architecture, 4> kArchitectures = {{
    {.name = "LlamaForCausalLM",
     .model_type = "llama",
     .max_position_embeddings = 2048,
     .num_key_value_heads = std::nullopt,
     .head_dim = std::nullopt,
     .bos_token_id = 1,
     .eos_token_id = 2,
     .windows = Windows::none,
     .has_attention_bias = true,
     .has_mlp_bias = true},
    {.name = "MistralForCausalLM",
     .model_type = "mistral",
     .max_position_embeddings = 131072,
     .num_key_value_heads = 8,
     .head_dim = std::nullopt,
     .bos_token_id = 1,
     .eos_token_id = 2,
     .windows = Windows::every_layer,
     .has_attention_bias = false,
     .has_mlp_bias = false},
    {.name = "Qwen2ForCausalLM",
     .model_type = "qwen2",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .head_dim = std::nullopt,
     .bos_token_id = std::nullopt,
     .eos_token_id = std::nullopt,
     .windows = Windows::by_layer,
     .has_attention_bias = false,
     .has_mlp_bias = false},
    {.name = "Qwen3ForCausalLM",
     .model_type = "qwen3",
     .max_position_embeddings = 32768,
     .num_key_value_heads = 32,
     .head_dim = 128,
     .bos_token_id = std::nullopt,
     .eos_token_id = std::nullopt,
     .windows = Windows::by_layer,
     .has_attention_bias = true,
     .has_mlp_bias = false},
}};

template <class Field>
std::string list_of(Field field) {
  std::string list;
  for (const Architecture& architecture : kArchitectures) {
    list += (list.empty() ? "" : ", ") + std::string(architecture.*field);
  }
  return list;
}

template <class Field>
const Architecture* find(Field field, std::string_view value) {
  const auto it =
      std::find_if(kArchitectures.begin(), kArchitectures.end(),
                   [&](const Architecture& architecture) { return value == architecture.*field; });
  return it == kArchitectures.end() ? nullptr : &*it;
}

void check_windows(const Architecture& architecture, const ModelConfig& c, Problems& problems) {
  if (architecture.windows == Windows::none && c.sliding_window) {
    problems.add("a ", c.model_type, " model has no sliding window: sliding_window must be null");
  }
  if (c.layer_types.empty()) return;
  if (architecture.windows != Windows::by_layer) {
    problems.add("layer_types must be empty: all layers of a ", c.model_type, " model are alike");
    return;
  }
  if (static_cast<std::int64_t>(c.layer_types.size()) != c.num_hidden_layers) {
    problems.add("layer_types has ", c.layer_types.size(), " entries; expected ",
                 c.num_hidden_layers, " (num_hidden_layers)");
  }
  for (const std::string& type : c.layer_types) {
    if (type == kFull) continue;
    if (type != kSliding) {
      problems.add("layer_types has \"", type, "\"; supported: ", kFull, ", ", kSliding);
    } else if (!c.sliding_window) {
      problems.add("layer_types has \"", type, "\", but the model has no sliding window",
                   " (use_sliding_window and sliding_window)");
    } else {
      continue;
    }
    return;
  }
}

}  // namespace

const Architecture* architecture_of_type(std::string_view model_type) {
  return find(&Architecture::model_type, model_type);
}

const Architecture* architecture_of_name(std::string_view name) {
  constexpr std::string_view kHeadless = "Model";
  if (!name.ends_with(kHeadless)) return find(&Architecture::name, name);
  name.remove_suffix(kHeadless.size());
  return find(&Architecture::name, std::string(name) + "ForCausalLM");
}

std::string supported_architectures() { return list_of(&Architecture::name); }
std::string supported_model_types() { return list_of(&Architecture::model_type); }

void check_config(const ModelConfig& c, Problems& problems) {
  const auto in_range = [&](const char* name, std::int64_t value, std::int64_t max) {
    if (value < 1 || value > max) {
      problems.add(name, " is ", value, "; expected 1 to ", max);
      return false;
    }
    return true;
  };
  in_range("vocab_size", c.vocab_size, kMaxVocab);
  in_range("intermediate_size", c.intermediate_size, kMaxWidth);
  in_range("num_hidden_layers", c.num_hidden_layers, kMaxLayers);
  const bool positions =
      in_range("max_position_embeddings", c.max_position_embeddings, kMaxPositions);
  if (c.sliding_window) in_range("sliding_window", *c.sliding_window, kMaxPositions);
  const bool width = in_range("hidden_size", c.hidden_size, kMaxWidth);
  const bool heads = in_range("num_attention_heads", c.num_attention_heads, kMaxHeads);
  const bool kv_heads = in_range("num_key_value_heads", c.num_key_value_heads, kMaxHeads);
  const bool sizes = width && heads && kv_heads;
  const bool head = !c.head_dim || in_range("head_dim", *c.head_dim, kMaxHeads);
  if (sizes && c.num_attention_heads % c.num_key_value_heads != 0) {
    problems.add("num_attention_heads (", c.num_attention_heads,
                 ") is not a multiple of num_key_value_heads (", c.num_key_value_heads, ")");
  }
  const bool needs_multiple = !c.head_dim || c.model_type == "llama";
  bool rotates = sizes && head && positions;
  if (sizes && needs_multiple && c.hidden_size % c.num_attention_heads != 0) {
    problems.add("hidden_size (", c.hidden_size, ") is not a multiple of num_attention_heads (",
                 c.num_attention_heads, ")");
  } else if (sizes && head && c.head_size() % 2 != 0) {
    problems.add("a head has ", c.head_size(),
                 " dimensions; rotary embedding needs an even number");
    rotates = false;
  }
  if (c.hidden_act != "silu" && c.hidden_act != "swish") {
    problems.add("hidden_act is \"", c.hidden_act, "\"; supported: silu");
  }
  if (!std::isfinite(c.rms_norm_eps) || c.rms_norm_eps <= 0) {
    problems.add("rms_norm_eps is ", c.rms_norm_eps, "; expected > 0");
  }
  if (!(c.initializer_range >= 0) || !std::isfinite(c.initializer_range)) {
    problems.add("initializer_range is ", c.initializer_range, "; expected 0 or more");
  }
  if (rotates) check_rope(c, problems);
  const Architecture* architecture = architecture_of_type(c.model_type);
  if (architecture == nullptr) {
    problems.add("the model_type \"", c.model_type,
                 "\" is not supported; supported: ", supported_model_types());
    return;
  }
  if (!architecture->has_attention_bias && c.attention_bias) {
    problems.add("a ", c.model_type, " model has no such biases: attention_bias must be false");
  }
  if (!architecture->has_mlp_bias && c.mlp_bias) {
    problems.add("a ", c.model_type, " model has no such biases: mlp_bias must be false");
  }
  check_windows(*architecture, c, problems);
}

}  // namespace lorapp::detail
