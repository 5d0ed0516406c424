// CausalLM: the interface of a language model, which a plain model and an adapted one both are.
// Batches are packed: T tokens of all sequences end to end, no batch dimension (packed_input.hpp).
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/checkpointing_mode.hpp>
#include <lorapp/nn/kv_cache.hpp>
#include <lorapp/nn/load.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/nn/packed_input.hpp>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>

namespace lorapp {

/// A decoder with a language-model head. Interfaces are passed as shared_ptr.
class LORAPP_API CausalLM : public torch::nn::Module {
 public:
  CausalLM() = default;
  ~CausalLM() override;

  virtual const ModelConfig& config() const = 0;

  /// The output of the last norm, [T, hidden]. With a cache: one sequence, whose first position is
  /// cache->length(), and no gradients.
  virtual torch::Tensor hidden_states(const PackedInput& input, KvCache* cache = nullptr) = 0;

  /// Logits […, vocab] of hidden states […, hidden].
  virtual torch::Tensor lm_head(const torch::Tensor& hidden) = 0;

  /// Logits [T, vocab] of every token: lm_head(hidden_states(input, cache)).
  torch::Tensor forward(const PackedInput& input, KvCache* cache = nullptr) {
    return lm_head(hidden_states(input, cache));
  }

  /// The seed of all dropout masks of the next forward pass (LinearAdapter::seed_dropout).
  virtual void seed_dropout(std::uint64_t step_seed) = 0;

  /// What of its activations a forward pass keeps for the backward pass, which makes the rest
  /// again; the gradients are the same bits.
  virtual void set_gradient_checkpointing(CheckpointingMode mode) = 0;

  /// The folder the weights came from, as it was given; empty for a new model.
  virtual std::string name_or_path() const = 0;

  /// Writes what this model is made of into the folder `dir`: config.json, generation_config.json
  /// and model.safetensors, in transformers' layout. A new or empty folder appears whole or not at
  /// all; among other files, which are left alone, each of the three does, the weights first. An
  /// adapted model writes its adapter instead.
  virtual void save_pretrained(const std::filesystem::path& dir) const = 0;

  /// Loads a Hugging Face model folder: config.json, and model.safetensors or shards behind
  /// model.safetensors.index.json. One Error lists every missing, unexpected and mis-shaped tensor.
  /// Peak memory is that of the loaded model and its largest tensor.
  static std::shared_ptr<CausalLM> from_pretrained(const std::filesystem::path& dir,
                                                   const LoadOptions& options = {});

  /// A new model: weights N(0, initializer_range) from a generator of its own, norms 1, biases 0,
  /// in config.dtype (float32 where it names none).
  static std::shared_ptr<CausalLM> from_config(const ModelConfig& config, std::uint64_t seed);
};

}  // namespace lorapp
