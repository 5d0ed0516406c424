// The models that the benchmarks of whole passes run: sizes of real ones, weights drawn at random.
#pragma once

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/quant/ops.hpp>

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

namespace lorapp::bench {

/// The size of the quickstart's model: 4 million parameters.
inline ModelConfig small_config() {
  ModelConfig config;
  config.vocab_size = 2048;
  config.hidden_size = 256;
  config.intermediate_size = 704;
  config.num_hidden_layers = 4;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 4;
  return config;
}

/// Mistral-7B with one of its 32 layers and a short vocabulary.
inline ModelConfig mistral_layer_config() {
  ModelConfig config;
  config.vocab_size = 1024;
  config.num_hidden_layers = 1;
  return config;
}

/// A model with 4-bit layers, or dense ones.
inline std::shared_ptr<CausalLM> make_model(const ModelConfig& config, bool quantized) {
  auto model = CausalLM::from_config(config, /*seed=*/1);
  if (quantized) {
    for_each_linear(*model, [](const std::string& path, LinearImpl& linear) {
      if (path != "lm_head") linear.set_quantized(quantize_4bit(linear.dense_weight().detach()));
    });
  }
  return model;
}

/// `count` token ids below `vocab_size`.
inline std::vector<std::int64_t> random_ids(std::int64_t count, std::int64_t vocab_size) {
  std::mt19937_64 random(7);
  std::vector<std::int64_t> ids(static_cast<std::size_t>(count));
  for (std::int64_t& id : ids) {
    id = static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(vocab_size));
  }
  return ids;
}

}  // namespace lorapp::bench
