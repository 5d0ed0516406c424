// Walks over the layers of a model: every Linear and Embedding by its path, counts of parameters.
// Paths are Hugging Face's: model.layers.0.self_attn.q_proj.
#pragma once

#include <lorapp/nn/embedding.hpp>
#include <lorapp/nn/linear.hpp>

#include <torch/nn/module.h>

#include <cstdint>
#include <string>
#include <unordered_set>

namespace lorapp {

/// Calls f(path, LinearImpl&) for every Linear below `root`, in the order of registration. It does
/// not look inside a Linear: what an adapter is made of is the adapter's own.
template <class F>
void for_each_linear(torch::nn::Module& root, F&& f, const std::string& prefix = {}) {
  for (const auto& child : root.named_children()) {
    const std::string path = prefix.empty() ? child.key() : prefix + "." + child.key();
    if (auto* linear = dynamic_cast<LinearImpl*>(child.value().get())) {
      f(path, *linear);
    } else {
      for_each_linear(*child.value(), f, path);
    }
  }
}

/// Calls f(path, EmbeddingImpl&) for every Embedding below `root`.
template <class F>
void for_each_embedding(torch::nn::Module& root, F&& f, const std::string& prefix = {}) {
  for (const auto& child : root.named_children()) {
    const std::string path = prefix.empty() ? child.key() : prefix + "." + child.key();
    if (auto* embedding = dynamic_cast<EmbeddingImpl*>(child.value().get())) {
      f(path, *embedding);
    } else {
      for_each_embedding(*child.value(), f, path);
    }
  }
}

namespace detail {

inline std::int64_t count_parameters_below(const torch::nn::Module& module,
                                           std::unordered_set<const void*>& seen) {
  std::int64_t count = 0;
  for (const auto& parameter : module.parameters(/*recurse=*/false)) {
    if (seen.insert(parameter.const_data_ptr()).second) count += parameter.numel();
  }
  if (const auto* linear = dynamic_cast<const LinearImpl*>(&module)) {
    if (linear->is_quantized()) count += linear->quantized().numel();
    if (linear->is_int8() && !linear->int8_is_copy()) count += linear->int8().numel();
  }
  for (const auto& child : module.children()) count += count_parameters_below(*child, seen);
  return count;
}

}  // namespace detail

/// The number of parameters below `module`: a quantized weight counts its elements, a shared one
/// once.
inline std::int64_t num_parameters(const torch::nn::Module& module) {
  std::unordered_set<const void*> seen;
  return detail::count_parameters_below(module, seen);
}

}  // namespace lorapp
