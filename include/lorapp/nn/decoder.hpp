// The decoder of all families: DecoderLayer, the stack, and the model with its head.
// Module paths are Hugging Face's: model.embed_tokens, model.layers.N.…, model.norm, lm_head.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/attention.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/checkpointing.hpp>
#include <lorapp/nn/checkpointing_mode.hpp>
#include <lorapp/nn/embedding.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>
#include <lorapp/nn/traverse.hpp>

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// One block: x + attention(norm(x)), then that + mlp(norm(that)).
class LORAPP_API DecoderLayerImpl : public torch::nn::Module {
 public:
  DecoderLayerImpl(const ModelConfig& config, std::size_t layer_index)
      : self_attn(config, layer_index),
        mlp(config),
        input_layernorm(config.hidden_size, config.rms_norm_eps),
        post_attention_layernorm(config.hidden_size, config.rms_norm_eps) {
    register_module("self_attn", self_attn);
    register_module("mlp", mlp);
    register_module("input_layernorm", input_layernorm);
    register_module("post_attention_layernorm", post_attention_layernorm);
  }

  /// x [T, hidden] → [T, hidden].
  torch::Tensor forward(const torch::Tensor& x, const SequenceContext& context) {
    const auto normed = [&](RMSNorm& norm, const torch::Tensor& residual) {
      return context.selective ? Activation(norm->recipe(residual)) : norm(residual);
    };
    const torch::Tensor attended = self_attn->forward_onto(x, normed(input_layernorm, x), context);
    return mlp->forward_onto(attended, normed(post_attention_layernorm, attended),
                             context.selective);
  }

  /// forward(), recomputed in the backward pass with the dropout masks and the mode of this call.
  torch::Tensor forward_checkpointed(const torch::Tensor& x,
                                     std::shared_ptr<const SequenceContext> context) {
    std::vector<torch::Tensor> trainable;
    for (const torch::Tensor& parameter : parameters()) {
      if (parameter.requires_grad()) trainable.push_back(parameter);
    }
    auto self = std::static_pointer_cast<DecoderLayerImpl>(shared_from_this());
    return checkpoint(
        [self, context = std::move(context), seed = dropout_seed_,
         training = is_training()](const torch::Tensor& input) {
          const Replay replay(*self, seed, training);
          return self->forward(input, *context);
        },
        x, trainable);
  }

  void seed_dropout(std::uint64_t step_seed) {
    dropout_seed_ = step_seed;
    for_each_linear(*this, [&](const std::string&, LinearImpl& linear) {
      if (linear.adapter() != nullptr) linear.adapter()->seed_dropout(step_seed);
    });
  }

  Attention self_attn;
  Mlp mlp;
  RMSNorm input_layernorm;
  RMSNorm post_attention_layernorm;

 private:
  // Puts a layer back into the state of an earlier forward pass, and at the end of the scope
  // forward again: between the two, other passes may have come.
  class Replay {
   public:
    Replay(DecoderLayerImpl& layer, std::uint64_t seed, bool training)
        : layer_(layer), seed_(layer.dropout_seed_), training_(layer.is_training()) {
      set(seed, training);
    }
    ~Replay() { set(seed_, training_); }
    Replay(const Replay&) = delete;
    Replay& operator=(const Replay&) = delete;

   private:
    void set(std::uint64_t seed, bool training) {
      if (layer_.dropout_seed_ != seed) layer_.seed_dropout(seed);
      if (layer_.is_training() != training) layer_.train(training);
    }

    DecoderLayerImpl& layer_;
    std::uint64_t seed_;
    bool training_;
  };

  std::uint64_t dropout_seed_ = 0;
};
TORCH_MODULE(DecoderLayer);

/// Embedding, layers and last norm; the submodule "model".
class LORAPP_API DecoderImpl : public torch::nn::Module {
 public:
  explicit DecoderImpl(const ModelConfig& config)
      : embed_tokens(config.vocab_size, config.hidden_size),
        norm(config.hidden_size, config.rms_norm_eps),
        rotary_(config.head_size(),
                config.rope_theta,
                config.rope_scaling,
                config.max_position_embeddings) {
    register_module("embed_tokens", embed_tokens);
    torch::nn::ModuleList list;
    for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
      layers.emplace_back(config, static_cast<std::size_t>(i));
      list->push_back(layers.back());
    }
    register_module("layers", list);
    register_module("norm", norm);
  }

  /// Hidden states after the last norm, [T, hidden].
  torch::Tensor forward(const PackedInput& input, KvCache* cache) {
    const torch::Device device = embed_tokens->weight().device();
    torch::Tensor x = embed_tokens(input.ids.to(device));
    auto context = std::make_shared<SequenceContext>();
    context->cu_seqlens = input.cu_seqlens;
    context->rotation = rotary_.at(input.positions.to(device), x.scalar_type());
    context->cache = cache;
    const bool trains = cache == nullptr && torch::GradMode::is_enabled();
    const CheckpointingMode mode = trains ? gradient_checkpointing : CheckpointingMode::none;
    context->selective = mode == CheckpointingMode::selective;
    for (DecoderLayer& layer : layers) {
      x = mode == CheckpointingMode::full ? layer->forward_checkpointed(x, context)
                                          : layer(x, *context);
    }
    if (cache != nullptr) cache->advance(input.num_tokens());
    return norm(x);
  }

  Embedding embed_tokens;
  std::vector<DecoderLayer> layers;
  RMSNorm norm;
  CheckpointingMode gradient_checkpointing = CheckpointingMode::none;

 private:
  RotaryEmbedding rotary_;
};
TORCH_MODULE(Decoder);

/// LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM. The constructor makes
/// no weights: from_pretrained and from_config give it some.
class LORAPP_API DecoderLM : public CausalLM {
 public:
  explicit DecoderLM(ModelConfig config, std::string name_or_path = {})
      : config_(std::move(config)),
        name_or_path_(std::move(name_or_path)),
        model_(config_),
        head_(config_.hidden_size, config_.vocab_size) {
    register_module("model", model_);
    register_module("lm_head", head_);
  }

  const ModelConfig& config() const override { return config_; }
  std::string name_or_path() const override { return name_or_path_; }

  torch::Tensor hidden_states(const PackedInput& input, KvCache* cache = nullptr) override {
    check_input(input, cache);
    return model_(input, cache);
  }

  torch::Tensor lm_head(const torch::Tensor& hidden) override { return head_(hidden); }

  void seed_dropout(std::uint64_t step_seed) override {
    for (DecoderLayer& layer : model_->layers) layer->seed_dropout(step_seed);
    if (head_->adapter() != nullptr) head_->adapter()->seed_dropout(step_seed);
  }

  void set_gradient_checkpointing(CheckpointingMode mode) override {
    model_->gradient_checkpointing = mode;
  }

  void save_pretrained(const std::filesystem::path& dir) const override;

  /// Replaces the head's weight by itself in 8 bits (quantize_int8), a quarter of the bytes of
  /// float32 and half of those of bfloat16: generating reads it once a token. A tied embedding
  /// stays as it is, and the head has a copy. Error if the head has no dense weight, has an
  /// adapter, or holds a weight that is not finite.
  void quantize_head() {
    LORAPP_CHECK(head_->is_dense(), "causal_lm", "lm_head has ",
                 !head_->has_weight()    ? "no weight yet"
                 : head_->is_quantized() ? "a 4-bit weight"
                                         : "an 8-bit weight already",
                 "; only a dense one can be put into 8 bits");
    LORAPP_CHECK(head_->adapter() == nullptr, "causal_lm",
                 "lm_head has an adapter; unload() it before the weight is put into 8 bits");
    const bool tied = !head_->named_parameters(/*recurse=*/false).contains("weight");
    const torch::Tensor weight = head_->dense_weight();  // 8-bit codes are made on the CPU
    head_->set_int8(quantize_int8(weight.to(torch::kCPU), "lm_head.weight").to(weight.device()),
                    tied);
  }

  Decoder& model() { return model_; }
  Linear& head() { return head_; }

  /// The text of generation_config.json that save_pretrained writes; empty: one made of the config.
  void set_generation_config(std::string json_text) { generation_config_ = std::move(json_text); }

 private:
  void check_input(const PackedInput& input, const KvCache* cache) const {
    input.validate();
    if (cache != nullptr) {
      LORAPP_CHECK(input.num_sequences() == 1, "causal_lm", "a KV cache holds one sequence; got ",
                   input.num_sequences());
    }
    if (!input.ids.is_cpu() || !input.positions.is_cpu()) return;
    const torch::Tensor ids = input.ids.contiguous();
    const auto* id = ids.const_data_ptr<std::int64_t>();
    for (std::int64_t i = 0; i < ids.size(0); ++i) {
      LORAPP_CHECK(id[i] >= 0 && id[i] < config_.vocab_size, "causal_lm", "token id ", id[i],
                   " at index ", i, " is outside the vocabulary of ", config_.vocab_size);
    }
    if (cache != nullptr) {
      const std::int64_t first = input.positions.contiguous().const_data_ptr<std::int64_t>()[0];
      LORAPP_CHECK(first == cache->length(), "causal_lm", "the first position is ", first,
                   ", but the KV cache has seen ", cache->length(), " tokens");
    }
  }

  ModelConfig config_;
  std::string name_or_path_;
  std::string generation_config_;
  Decoder model_;
  Linear head_;
};

}  // namespace lorapp
