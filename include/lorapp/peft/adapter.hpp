// Adapter: everything that one named adapter adds to a base model.
// Its parts sit in the layers while it is the active one, and here all the time.
#pragma once

#include <lorapp/nn/embedding.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/peft/lora.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <torch/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// A Linear and its LoRA; `path` is the layer's in the base model.
struct AdaptedLayer {
  std::string path;
  LinearImpl* linear;
  std::shared_ptr<LoraAdapter> adapter;
};

/// An Embedding and its LoRA.
struct AdaptedEmbedding {
  std::string path;
  EmbeddingImpl* embedding;
  std::shared_ptr<LoraEmbedding> adapter;
};

/// A parameter of the base of which an adapter has its own value. The parameter stays the same
/// object; swap() exchanges what it holds, so an optimizer that knows it is not disturbed.
struct WeightCopy {
  std::string name;         ///< in PEFT's file
  torch::Tensor parameter;  ///< the base's
  torch::Tensor other;      ///< the value that is not in use: the adapter's, or the base's
  bool trained = true;      ///< PEFT's modules_to_save; else an embedding that came with a file
  bool in_use = false;      ///< the parameter holds the adapter's value

  void swap() {
    torch::Tensor before = parameter.detach();
    parameter.set_data(other);
    other = std::move(before);
    in_use = !in_use;
  }

  /// The adapter's value: the parameter itself while it is in use.
  const torch::Tensor& value() const noexcept { return in_use ? parameter : other; }
};

/// What goes into a layer's slot.
template <class Layer, class LayerAdapter>
struct AdapterSlot {
  std::string path;
  Layer* layer;
  std::shared_ptr<LayerAdapter> adapter;
  bool shared = false;  ///< it only reads what another slot trains, whose merge is also its own
};

/// One adapter of a model.
struct Adapter {
  std::string name;
  LoraConfig config;
  bool trainable = true;
  std::vector<AdaptedLayer> layers;
  std::vector<AdaptedEmbedding> embeddings;
  std::vector<AdapterSlot<LinearImpl, LinearAdapter>> linear_slots;
  std::vector<AdapterSlot<EmbeddingImpl, EmbeddingAdapter>> embedding_slots;
  std::vector<WeightCopy> copies;
  /// Trained tensors with their names in the file, but for those of `copies`.
  std::vector<std::pair<std::string, torch::Tensor>> tensors;

  /// Puts the parts into the layers, whose slots must be free.
  void activate() {
    for (const auto& slot : linear_slots) slot.layer->attach(slot.adapter);
    for (const auto& slot : embedding_slots) slot.layer->attach(slot.adapter);
    use_copies(true);
  }

  /// Takes them out again.
  void deactivate() {
    for (const auto& slot : linear_slots) slot.layer->detach_adapter();
    for (const auto& slot : embedding_slots) slot.layer->detach_adapter();
    use_copies(false);
  }

  void enable_slots(bool enabled) const {
    for (const auto& slot : linear_slots) slot.layer->set_adapter_enabled(enabled);
    for (const auto& slot : embedding_slots) slot.layer->set_adapter_enabled(enabled);
  }

  /// The adapter's values of copied parameters (trainable where it is), or the base's (frozen).
  void use_copies(bool use) {
    for (WeightCopy& copy : copies) {
      if (copy.in_use != use) copy.swap();
      copy.parameter.requires_grad_(use && trainable && copy.trained);
    }
  }

  /// Makes every part frozen or trainable.
  void set_trainable(bool value) {
    trainable = value;
    for (auto& [name_in_file, tensor] : tensors) tensor.requires_grad_(value);
    for (WeightCopy& copy : copies) {
      copy.parameter.requires_grad_(copy.in_use && value && copy.trained);
    }
  }
};

}  // namespace lorapp
