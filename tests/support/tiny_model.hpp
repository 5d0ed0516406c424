// A decoder of a few thousand parameters for tests, and examples for it.
#pragma once

#include <lorapp/data/example.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/traverse.hpp>

#include <cstdint>
#include <memory>
#include <random>
#include <vector>

namespace lorapp::test {

/// Two layers, grouped queries, and sizes that no block or vector width divides.
inline ModelConfig tiny_config() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 40;
  config.intermediate_size = 72;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 10;
  config.max_position_embeddings = 128;
  config.initializer_range = 0.2;
  config.dtype = c10::ScalarType::Float;
  return config;
}

inline std::shared_ptr<CausalLM> tiny_model(std::uint64_t seed = 7,
                                            const ModelConfig& config = tiny_config()) {
  return CausalLM::from_config(config, seed);
}

/// `count` examples of 3 to 14 tokens; the first third of each is not scored.
inline TokenizedDataset tiny_dataset(std::int64_t count, std::uint64_t seed = 1) {
  std::mt19937_64 random(seed);
  std::vector<Example> examples;
  for (std::int64_t i = 0; i < count; ++i) {
    Example example;
    const auto length = static_cast<std::size_t>(3 + random() % 12);
    for (std::size_t t = 0; t < length; ++t) {
      example.ids.push_back(static_cast<std::int64_t>(random() % 61));
      example.labels.push_back(t < length / 3 ? kIgnoreLabel : example.ids.back());
    }
    examples.push_back(std::move(example));
  }
  return TokenizedDataset(std::move(examples));
}

}  // namespace lorapp::test
