// An adapter in a model without weights: what each tensor of a folder becomes.
#pragma once

#include "nn/weight_sources.hpp"

#include <lorapp/nn/embedding.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>

namespace lorapp::detail {

/// What an adapter makes of one weight.
struct WeightUpdate {
  torch::Tensor value;                          ///< in its place; undefined: it stays
  const LinearAdapter* linear = nullptr;        ///< then an update of a matrix, or null
  const EmbeddingAdapter* embedding = nullptr;  ///< or of a table
  torch::Tensor bias;                           ///< or of a bias, defined where there is one

  /// Some of the weight's rows from `first` on, in float32 → what they become, and by how much.
  std::pair<torch::Tensor, torch::Tensor> apply(const torch::Tensor& rows,
                                                std::int64_t first) const;
};

/// The layers of a model with the adapter of a folder in them. Matrices take no memory until the
/// adapter brings one; the adapter is checked against the model as PeftModel checks it.
class ModelOutline {
 public:
  /// Error for a lora_bias on a layer without a bias.
  ModelOutline(const ModelFolder& folder,
               const WeightReader& reader,
               const std::filesystem::path& adapter_dir);

  /// Nothing: the weight stays as it is.
  std::optional<WeightUpdate> update_of(const std::string& name) const;

  /// Whether head and embedding are one in the folder, and differ with the adapter.
  bool unties_head() const;
  /// The source of such a head: the embedding's tensor.
  WeightSource own_head() const;

 private:
  torch::Tensor own_value(const torch::Tensor& parameter) const;

  const ModelFolder& folder_;
  const WeightReader& reader_;
  std::set<const void*> placeholders_;  // where the matrices that take no memory are
  std::shared_ptr<CausalLM> model_;
  std::optional<PeftModel> adapted_;
  LinearImpl* head_ = nullptr;
  EmbeddingImpl* table_ = nullptr;
};

}  // namespace lorapp::detail
