// PeftModel: a language model whose chosen layers carry a LoRA adapter, the rest frozen.
// The base model is adapted in place and shared: its layers hold the adapters until unload().
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/peft/adapter.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// Numbers of parameters; a 4-bit weight counts its elements, a shared parameter once.
struct ParameterCounts {
  std::int64_t trainable = 0;
  std::int64_t all = 0;

  double percent() const {
    return 100.0 * static_cast<double>(trainable) / static_cast<double>(all);
  }
};

/// The name of an adapter that was given none, as in PEFT.
inline constexpr const char* kDefaultAdapter = "default";

/// A CausalLM with LoRA adapters. It may hold several by name, of which one is active: in the
/// layers, trained, merged.
///
/// Dropout needs a new seed for every forward pass in train mode (seed_dropout; the Trainer does
/// that): without one the same elements are dropped every time.
class LORAPP_API PeftModel : public CausalLM {
 public:
  using AdaptedLayer = lorapp::AdaptedLayer;

  /// Freezes `base` and attaches a new adapter to every layer that `config` means. `seed` is that
  /// of the initial weights. A target that matches no layer is an Error that lists the nearest
  /// names; so is a base that has adapters already.
  explicit PeftModel(std::shared_ptr<CausalLM> base,
                     LoraConfig config = {},
                     std::uint64_t seed = 42);

  /// Reads adapter_config.json and adapter_model.safetensors from `dir`, as lorapp or PEFT wrote
  /// them. One Error lists every missing, unexpected and mis-shaped tensor. Half-precision files
  /// are widened to float32, but for modules_to_save, which get the dtype of the base. Frozen and
  /// in eval mode unless `is_trainable`.
  static PeftModel from_pretrained(std::shared_ptr<CausalLM> base,
                                   const std::filesystem::path& dir,
                                   bool is_trainable = false,
                                   const std::string& adapter_name = kDefaultAdapter);

  PeftModel(PeftModel&&) noexcept = default;
  PeftModel(const PeftModel&) = delete;
  PeftModel& operator=(PeftModel&&) = delete;
  PeftModel& operator=(const PeftModel&) = delete;
  ~PeftModel() override;

  // The model, base and adapters together.
  const ModelConfig& config() const override { return base_->config(); }
  torch::Tensor hidden_states(const PackedInput& input, KvCache* cache = nullptr) override {
    return base_->hidden_states(input, cache);
  }
  torch::Tensor lm_head(const torch::Tensor& hidden) override { return base_->lm_head(hidden); }
  void set_gradient_checkpointing(CheckpointingMode mode) override {
    base_->set_gradient_checkpointing(mode);
  }
  std::string name_or_path() const override { return base_->name_or_path(); }
  // By the base, whose layers note the seed for when they are computed again.
  void seed_dropout(std::uint64_t step_seed) override { base_->seed_dropout(step_seed); }

  const std::shared_ptr<CausalLM>& base() const noexcept { return base_; }
  /// Of the active adapter.
  const LoraConfig& peft_config() const noexcept { return active_->config; }
  const std::vector<AdaptedLayer>& adapted_layers() const noexcept { return active_->layers; }
  const std::vector<AdaptedEmbedding>& adapted_embeddings() const noexcept {
    return active_->embeddings;
  }

  /// Makes another adapter, which is not active: see set_adapter. A name has no dot and no slash.
  void add_adapter(const std::string& name, LoraConfig config, std::uint64_t seed = 42);

  /// Reads another adapter from `dir`, which is not active; PEFT's save_pretrained writes each but
  /// the default one into a sub-folder of its name.
  void load_adapter(const std::filesystem::path& dir,
                    const std::string& name,
                    bool is_trainable = false);

  /// Puts the adapter of that name into the layers, in place of the active one.
  void set_adapter(const std::string& name);

  /// Drops an adapter that is not active.
  void delete_adapter(const std::string& name);

  const std::string& active_adapter() const noexcept { return active_->name; }
  /// All names, in the order the adapters were made.
  std::vector<std::string> adapter_names() const;

  /// The counts that PEFT's get_nb_trainable_parameters() gives.
  ParameterCounts trainable_parameters() const;

  /// PEFT's line: "trainable params: 6,815,744 || all params: 7,248,547,840 || trainable%: 0.0940".
  void print_trainable_parameters(std::ostream& out = std::cout) const;

  /// Switches all adapters on or off; off, the model is its base. Error while they are merged.
  void enable_adapter() { set_adapter_enabled(true); }
  void disable_adapter() { set_adapter_enabled(false); }
  bool adapter_enabled() const noexcept { return enabled_; }

  /// Switches the adapters off for a scope, then back to what they were.
  class [[nodiscard]] AdapterDisabled {
   public:
    explicit AdapterDisabled(PeftModel& model) : model_(model), before_(model.enabled_) {
      model_.set_adapter_enabled(false);
    }
    ~AdapterDisabled() {
      if (!model_.is_merged()) model_.set_adapter_enabled(before_);  // merged in this scope
    }
    AdapterDisabled(const AdapterDisabled&) = delete;
    AdapterDisabled& operator=(const AdapterDisabled&) = delete;

   private:
    PeftModel& model_;
    bool before_;
  };

  /// Adds every update to its weight and switches the adapters off: the sum is taken in float32 and
  /// rounded to the weight's dtype once. The old weights are kept, so unmerge() restores them bit
  /// for bit. Error for a 4-bit weight, which cannot take an update without being quantized anew,
  /// for a head whose weight is the embedding's, and for a lora_bias of a layer without a bias.
  void merge();
  void unmerge();
  bool is_merged() const noexcept { return !merged_.empty(); }

  /// Takes the adapters out of the base and returns it, as it was before except that its
  /// parameters stay frozen and trained biases (LoraConfig::bias) keep their values. This model
  /// then has no adapters left.
  std::shared_ptr<CausalLM> unload();

  /// merge() without keeping the old weights, then unload(): the tuned model as a plain one. Error
  /// where modules_to_save have taken a tied head and its embedding apart.
  std::shared_ptr<CausalLM> merge_and_unload();

  /// Writes adapter_config.json, adapter_model.safetensors and README.md into `dir`, which is made
  /// where it is missing; an adapter that is not named "default" into a sub-folder of its name, as
  /// PEFT does. PEFT reads them. All three are written before the first takes its place.
  void save_pretrained(const std::filesystem::path& dir) const override;

  /// Replaces the values of the active adapter by those of `dir`/adapter_model.safetensors, all or
  /// none of them; of its sub-folder where save_pretrained gave it one. Where the folder holds an
  /// adapter_config.json, each layer's scale must be the one it says.
  void load_adapter_weights(const std::filesystem::path& dir);

  /// Every tensor that the active adapter trains, with its name in PEFT's file:
  /// base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight, …
  std::vector<std::pair<std::string, torch::Tensor>> adapter_state() const;

 private:
  struct Loading {};  // the constructor for weights that come from a file
  PeftModel(Loading, std::shared_ptr<CausalLM> base, LoraConfig config, const std::string& name);

  void start(const std::string& name, LoraConfig config, std::uint64_t seed, bool must_match);
  Adapter& add(const std::string& name, LoraConfig config, std::uint64_t seed, bool must_match);
  Adapter& find(const std::string& name) const;
  void load_tensors(Adapter& adapter, const std::filesystem::path& dir);
  void save_adapter(const Adapter& adapter, const std::filesystem::path& dir) const;
  void set_adapter_enabled(bool enabled);
  void add_updates(bool keep_weights);

  std::shared_ptr<CausalLM> base_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  Adapter* active_ = nullptr;          // one of adapters_; an empty one once they are unloaded
  LinearImpl* untied_head_ = nullptr;  // taken apart from this embedding; null: nothing was
  EmbeddingImpl* untied_embedding_ = nullptr;
  std::vector<std::pair<torch::Tensor, torch::Tensor>> merged_;  // while merged: weights as before
  bool enabled_ = true;
};

}  // namespace lorapp
