// Embedding: one row of a table per token, and a slot for an adapter.
// The table is [vocab, hidden]; a tied head multiplies with the same parameter.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/adapter.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <utility>

namespace lorapp {

/// The token embedding. It holds no weight until set_weight() gives it one.
class LORAPP_API EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(std::int64_t rows, std::int64_t size) : rows_(rows), size_(size) {}

  /// ids [T] int64 on the table's device → [T, size].
  torch::Tensor forward(const torch::Tensor& ids) const {
    const torch::Tensor rows = at::embedding(weight_, ids);
    return adapter_ != nullptr && adapter_enabled_ ? adapter_->adapt(ids, rows) : rows;
  }

  std::int64_t rows() const noexcept { return rows_; }
  std::int64_t size() const noexcept { return size_; }

  const torch::Tensor& weight() const noexcept { return weight_; }

  /// Makes `weight` [rows, size] the parameter "weight".
  void set_weight(const torch::Tensor& weight, bool requires_grad = true) {
    LORAPP_CHECK(weight.dim() == 2 && weight.size(0) == rows_ && weight.size(1) == size_,
                 "embedding", "weight has the shape ", weight.sizes(), "; expected [", rows_, ", ",
                 size_, "]");
    if (parameters_.contains("weight")) parameters_.erase("weight");
    weight_ = register_parameter("weight", weight.detach(), requires_grad);
  }

  /// Plugs an adapter in, as the submodule "lora"; Error if there is one.
  void attach(std::shared_ptr<EmbeddingAdapter> adapter) {
    LORAPP_CHECK(adapter != nullptr, "embedding", "cannot attach an adapter that is null");
    LORAPP_CHECK(adapter_ == nullptr, "embedding", "there is an adapter already; detach it first");
    adapter_ = register_module("lora", std::move(adapter));
    adapter_enabled_ = true;
  }

  /// Takes the adapter out and returns it; null if there was none.
  std::shared_ptr<EmbeddingAdapter> detach_adapter() {
    if (adapter_ != nullptr) unregister_module("lora");
    return std::exchange(adapter_, nullptr);
  }

  /// The adapter, or null.
  const std::shared_ptr<EmbeddingAdapter>& adapter() const noexcept { return adapter_; }

  /// A disabled adapter stays in its slot but changes nothing.
  void set_adapter_enabled(bool enabled) noexcept { adapter_enabled_ = enabled; }
  bool adapter_enabled() const noexcept { return adapter_enabled_; }

 private:
  std::int64_t rows_;
  std::int64_t size_;
  torch::Tensor weight_;  // [rows, size]
  std::shared_ptr<EmbeddingAdapter> adapter_;
  bool adapter_enabled_ = true;
};
TORCH_MODULE(Embedding);

}  // namespace lorapp
