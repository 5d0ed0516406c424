// The tensors of a dense checkpoint: names and shapes.
#include <lorapp/nn/model_config.hpp>

#include <functional>
#include <numeric>
#include <utility>

namespace lorapp {

std::vector<TensorSpec> expected_tensors(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t ffn = config.intermediate_size;
  const std::int64_t query = config.num_attention_heads * config.head_size();
  const std::int64_t key = config.num_key_value_heads * config.head_size();
  std::vector<TensorSpec> specs;
  const auto linear = [&](const std::string& path, std::int64_t out, std::int64_t in, bool bias) {
    specs.push_back({path + ".weight", {out, in}});
    if (bias) specs.push_back({path + ".bias", {out}});
  };
  specs.push_back({"model.embed_tokens.weight", {config.vocab_size, hidden}});
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    linear(layer + "self_attn.q_proj", query, hidden, config.has_qkv_bias());
    linear(layer + "self_attn.k_proj", key, hidden, config.has_qkv_bias());
    linear(layer + "self_attn.v_proj", key, hidden, config.has_qkv_bias());
    linear(layer + "self_attn.o_proj", hidden, query, config.has_output_bias());
    if (config.has_qk_norm()) {
      specs.push_back({layer + "self_attn.q_norm.weight", {config.head_size()}});
      specs.push_back({layer + "self_attn.k_norm.weight", {config.head_size()}});
    }
    linear(layer + "mlp.gate_proj", ffn, hidden, config.mlp_bias);
    linear(layer + "mlp.up_proj", ffn, hidden, config.mlp_bias);
    linear(layer + "mlp.down_proj", hidden, ffn, config.mlp_bias);
    specs.push_back({layer + "input_layernorm.weight", {hidden}});
    specs.push_back({layer + "post_attention_layernorm.weight", {hidden}});
  }
  specs.push_back({"model.norm.weight", {hidden}});
  if (!config.tie_word_embeddings) linear("lm_head", config.vocab_size, hidden, false);
  return specs;
}

std::int64_t count_parameters(const ModelConfig& config) {
  std::int64_t count = 0;
  for (const TensorSpec& spec : expected_tensors(config)) {
    count +=
        std::accumulate(spec.shape.begin(), spec.shape.end(), std::int64_t{1}, std::multiplies<>());
  }
  return count;
}

}  // namespace lorapp
