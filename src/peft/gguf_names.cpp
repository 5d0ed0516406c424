#include "gguf_names.hpp"

#include <cstddef>
#include <map>
#include <string_view>
#include <vector>

namespace lorapp::detail {

namespace {

// Rows [heads · (2, d/2)] → [heads · (d/2, 2)]: the halves of each head are interleaved.
torch::Tensor interleave_halves(const torch::Tensor& rows, std::int64_t heads) {
  return rows.reshape({heads, 2, rows.size(0) / heads / 2, -1})
      .transpose(1, 2)
      .reshape(rows.sizes());
}

}  // namespace

const GgufArchitecture* gguf_architecture(const std::string& model_type) {
  static const std::map<std::string, GgufArchitecture> known = {{"llama", {"llama", true}},
                                                                {"mistral", {"llama", true}},
                                                                {"qwen2", {"qwen2", false}},
                                                                {"qwen3", {"qwen3", false}}};
  const auto found = known.find(model_type);
  return found == known.end() ? nullptr : &found->second;
}

std::string gguf_name(const std::string& path) {
  static const std::map<std::string, std::string> outer = {
      {"lm_head", "output"}, {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}};
  static const std::map<std::string, std::string> inner = {
      {"self_attn.q_proj", "attn_q"},          {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},          {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},     {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},           {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},           {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"}};
  if (const auto found = outer.find(path); found != outer.end()) return found->second;
  constexpr std::string_view kLayers = "model.layers.";
  if (!path.starts_with(kLayers)) return {};
  const std::size_t dot = path.find('.', kLayers.size());
  if (dot == std::string::npos) return {};
  const auto found = inner.find(path.substr(dot + 1));
  if (found == inner.end()) return {};
  return "blk." + path.substr(kLayers.size(), dot - kLayers.size()) + "." + found->second;
}

torch::Tensor gguf_rows(const std::string& path,
                        const torch::Tensor& rows,
                        const GgufArchitecture& architecture,
                        const ModelConfig& config) {
  if (!architecture.rotates_pairs) return rows;
  if (path.ends_with("self_attn.q_proj"))
    return interleave_halves(rows, config.num_attention_heads);
  if (path.ends_with("self_attn.k_proj"))
    return interleave_halves(rows, config.num_key_value_heads);
  return rows;
}

}  // namespace lorapp::detail
