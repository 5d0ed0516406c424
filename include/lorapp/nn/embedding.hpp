// Embedding: one row of a table per token.
// The table is [vocab, hidden]; a tied head multiplies with the same parameter.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>

namespace lorapp {

/// The token embedding. It holds no weight until set_weight() gives it one.
class LORAPP_API EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(std::int64_t rows, std::int64_t size) : rows_(rows), size_(size) {}

  /// ids [T] int64 on the table's device → [T, size].
  torch::Tensor forward(const torch::Tensor& ids) const { return at::embedding(weight_, ids); }

  const torch::Tensor& weight() const noexcept { return weight_; }

  /// Makes `weight` [rows, size] the parameter "weight".
  void set_weight(const torch::Tensor& weight, bool requires_grad = true) {
    LORAPP_CHECK(weight.dim() == 2 && weight.size(0) == rows_ && weight.size(1) == size_,
                 "embedding", "weight has the shape ", weight.sizes(), "; expected [", rows_, ", ",
                 size_, "]");
    if (parameters_.contains("weight")) parameters_.erase("weight");
    weight_ = register_parameter("weight", weight.detach(), requires_grad);
  }

 private:
  std::int64_t rows_;
  std::int64_t size_;
  torch::Tensor weight_;  // [rows, size]
};
TORCH_MODULE(Embedding);

}  // namespace lorapp
