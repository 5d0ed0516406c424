// What ModelConfig's files share: the families lorapp has, limits of fields, rotary parameters.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/nn/model_config.hpp>

#include "json_file.hpp"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp::detail {

inline constexpr std::string_view kConfigOp = "model_config";

// What no model comes near; sizes up to here cannot overflow a product of three of them.
inline constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
inline constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
inline constexpr std::int64_t kMaxLayers = 4096;
inline constexpr std::int64_t kMaxHeads = 4096;
inline constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;
inline constexpr std::int64_t kMaxTokenId = kMaxVocab;

enum class Windows { none, every_layer, by_layer };

/// A family, and transformers' defaults for what its config.json leaves out.
struct Architecture {
  const char* name;
  const char* model_type;
  std::int64_t max_position_embeddings;
  /// Nothing: num_attention_heads.
  std::optional<std::int64_t> num_key_value_heads;
  /// Nothing: hidden_size / num_attention_heads.
  std::optional<std::int64_t> head_dim;
  std::optional<std::int64_t> bos_token_id;
  std::optional<std::int64_t> eos_token_id;
  Windows windows;
  /// Whether attention_bias and mlp_bias are fields of this family.
  bool has_attention_bias;
  bool has_mlp_bias;
};

/// The sliding window of Mistral and Qwen where their files name none.
inline constexpr std::int64_t kDefaultWindow = 4096;
/// Qwen: the first layer that slides, where the file names none.
inline constexpr std::int64_t kDefaultWindowLayers = 28;

inline constexpr const char* kSliding = "sliding_attention";
inline constexpr const char* kFull = "full_attention";

/// Null where lorapp has no family of that name. A decoder that was saved without its head calls
/// itself LlamaModel, not LlamaForCausalLM; both are found.
const Architecture* architecture_of_type(std::string_view model_type);
const Architecture* architecture_of_name(std::string_view name);
/// "LlamaForCausalLM, …" and "llama, …".
std::string supported_architectures();
std::string supported_model_types();

/// Reads theta and scaling: rope_theta at the top and rope_scaling {type, …} (transformers 4), or
/// rope_parameters {rope_type, rope_theta, …} (5).
void read_rope(const nlohmann::json& file, ModelConfig& config, Problems& problems);
/// Adds what is wrong with theta and scaling; max_position_embeddings and the heads are valid.
void check_rope(const ModelConfig& config, Problems& problems);
/// Writes them in the spelling of transformers 4, which 5 reads too.
void write_rope(const ModelConfig& config, nlohmann::json& file);

/// Adds what is wrong with the values of a config.
void check_config(const ModelConfig& config, Problems& problems);

}  // namespace lorapp::detail
