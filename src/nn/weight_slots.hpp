// Where the tensors of a checkpoint go in a model: modules by path.
// A tensor name is a module path, a dot, and "weight" or "bias".
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/nn/decoder.hpp>

#include "nn/tensor_name.hpp"

#include <string>

namespace lorapp::detail {

/// The modules of one model that hold weights.
class WeightSlots {
 public:
  explicit WeightSlots(torch::nn::Module& model)
      : modules_(model.named_modules(/*name_prefix=*/{}, /*include_self=*/false)) {}

  /// The Linear at `path`; null where something else stands there.
  LinearImpl* linear(const std::string& path) const {
    const auto* module = modules_.find(path);
    return module == nullptr ? nullptr : dynamic_cast<LinearImpl*>(module->get());
  }

  /// Gives the parameter `name` its value.
  void set(const std::string& name, const torch::Tensor& value) const {
    const auto [path, leaf] = split_tensor_name(name);
    torch::nn::Module* module = modules_[path].get();
    if (auto* found = dynamic_cast<LinearImpl*>(module)) {
      leaf == "bias" ? found->set_bias(value) : found->set_dense(value);
    } else if (auto* norm = dynamic_cast<RMSNormImpl*>(module)) {
      norm->set_weight(value);
    } else if (auto* embedding = dynamic_cast<EmbeddingImpl*>(module)) {
      embedding->set_weight(value);
    } else {
      fail("causal_lm", name + " is no parameter of this model");
    }
  }

 private:
  torch::OrderedDict<std::string, std::shared_ptr<torch::nn::Module>> modules_;
};

/// A tied head reads the embedding; call it once the embedding has its weight.
inline void tie_head(DecoderLM& model) {
  if (model.config().tie_word_embeddings) model.head()->tie(model.model()->embed_tokens->weight());
}

}  // namespace lorapp::detail
