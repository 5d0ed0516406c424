// ModelConfig: what a model folder's config.json says, under Hugging Face's names.
// Reads the spellings of transformers 4 and 5; a field that changes the numbers is used or refused.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/rope_scaling.hpp>
#include <lorapp/quant/config.hpp>

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace lorapp {

/// A decoder of the Llama, Mistral, Qwen2 or Qwen3 family. Everything a config.json may leave out
/// has transformers' default for the model type once the file was read; the defaults here are those
/// of a hand-written config.
struct LORAPP_API ModelConfig {
  /// "llama", "mistral", "qwen2" (Qwen2.5 too) or "qwen3".
  std::string model_type = "mistral";
  std::vector<std::string> architectures = {"MistralForCausalLM"};
  std::int64_t vocab_size = 32000;
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 14336;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 8;
  /// Nothing: hidden_size / num_attention_heads; see head_size().
  std::optional<std::int64_t> head_dim = {};
  std::string hidden_act = "silu";
  std::int64_t max_position_embeddings = 32768;
  /// Standard deviation of the initial weights of from_config.
  double initializer_range = 0.02;
  double rms_norm_eps = 1e-5;
  double rope_theta = 10000.0;
  RopeScaling rope_scaling = {};
  /// Keys a query sees, itself included; nothing: all before it. Always nothing for Llama.
  std::optional<std::int64_t> sliding_window = {};
  /// Qwen: "sliding_attention" or "full_attention" for each layer; empty: sliding_window counts in
  /// every layer.
  std::vector<std::string> layer_types = {};
  bool tie_word_embeddings = false;
  /// Biases of q, k, v and o (Llama, Qwen3), and of gate, up and down (Llama). Qwen2 always has
  /// biases on q, k and v alone: see has_qkv_bias().
  bool attention_bias = false;
  bool mlp_bias = false;
  std::optional<std::int64_t> bos_token_id = 1;
  /// Every id that ends a text.
  std::vector<std::int64_t> eos_token_id = {2};
  std::optional<std::int64_t> pad_token_id = {};
  /// `dtype` (transformers 5) or `torch_dtype` (4); float64 is read as float32.
  std::optional<c10::ScalarType> dtype = {};
  /// Present where the folder's weights are 4-bit already (bitsandbytes).
  std::optional<QuantConfig> quantization_config = {};

  /// The size of one attention head.
  std::int64_t head_size() const {
    return head_dim ? *head_dim : hidden_size / (num_attention_heads > 0 ? num_attention_heads : 1);
  }

  /// sliding_window where the layer has one.
  std::optional<std::int64_t> window(std::size_t layer) const {
    const bool slides = layer_types.empty() || layer_types.at(layer) == "sliding_attention";
    return slides ? sliding_window : std::nullopt;
  }

  bool has_qkv_bias() const { return attention_bias || model_type == "qwen2"; }
  bool has_output_bias() const { return attention_bias; }
  /// Whether queries and keys are normalized head by head.
  bool has_qk_norm() const { return model_type == "qwen3"; }

  /// Reads a config.json. One Error lists every problem of the file: a missing or misspelt field,
  /// an architecture, activation or rotary scaling that lorapp has not, sizes that do not fit
  /// together. Of rope_scaling and rope_parameters the first that is not empty counts.
  static ModelConfig from_file(const std::filesystem::path& path);
  /// from_file(dir / "config.json"); where the folder has a generation_config.json, the bos, eos
  /// and pad ids that it names are the ones that count, as for transformers' generate().
  static ModelConfig from_pretrained(const std::filesystem::path& dir);

  /// Throws one Error that lists everything wrong with the values, as from_file does.
  void validate(const std::string& subject = "ModelConfig") const;

  /// Writes a config.json that transformers 4 and 5 load. quantization_config is not written: it
  /// describes files, and the weights that lorapp writes beside a config are dense.
  void save(const std::filesystem::path& path) const;
};

/// A tensor of a checkpoint: its Hugging Face name and shape.
struct TensorSpec {
  std::string name;
  std::vector<std::int64_t> shape;

  /// Whether it is the weight of a Linear: a matrix, and not the embedding's.
  bool is_linear_weight() const {
    return shape.size() == 2 && name.ends_with(".weight") && !name.ends_with("embed_tokens.weight");
  }
};

/// Every tensor of a dense checkpoint of this model, in the order of the layers. A tied head is not
/// listed: it is the embedding.
LORAPP_API std::vector<TensorSpec> expected_tensors(const ModelConfig& config);

/// The number of parameters, without a weight in memory: 7,241,732,096 for Mistral-7B.
LORAPP_API std::int64_t count_parameters(const ModelConfig& config);

}  // namespace lorapp
