// TrainableTokens: some rows of an embedding are replaced by trained ones, the others stay frozen.
// PEFT's trainable_token_indices; a head that is tied to the table reads the same rows.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/adapter.hpp>

#include <torch/types.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace lorapp {

/// The rows of a table [vocab, size] at some token ids, trained in float32.
class LORAPP_API TrainableTokens : public EmbeddingAdapter {
 public:
  /// The rows start as those of `table`. `ids` are distinct, in the order of the file's rows.
  TrainableTokens(const torch::Tensor& table, const std::vector<std::int64_t>& ids)
      : ids_(torch::tensor(ids, torch::kInt64)),
        position_(torch::full({table.size(0)}, -1, torch::kInt64)) {
    for (std::size_t i = 0; i < ids.size(); ++i) {
      LORAPP_CHECK(ids[i] >= 0 && ids[i] < table.size(0), "trainable_tokens", "token id ", ids[i],
                   " is outside the vocabulary of ", table.size(0));
      position_[ids[i]] = static_cast<std::int64_t>(i);
    }
    ids_ = ids_.to(table.device());
    position_ = position_.to(table.device());
    const torch::Tensor start = table.detach().index_select(0, ids_).to(torch::kFloat32);
    rows_ = register_parameter("tokens", start.clone());
  }

  torch::Tensor adapt(const torch::Tensor& ids, const torch::Tensor& rows) override {
    const torch::Tensor position = position_.index_select(0, ids);
    const torch::Tensor trained = at::embedding(rows_, position.clamp_min(0));
    return at::where(position.ge(0).unsqueeze(1), trained.to(rows.scalar_type()), rows);
  }

  void merge_into(torch::Tensor& table) override {
    table.index_copy_(0, ids_, rows_.detach().to(table.scalar_type()));
  }

  /// The token ids, [n] int64.
  const torch::Tensor& ids() const noexcept { return ids_; }
  /// The trained rows, [n, size].
  const torch::Tensor& rows() const noexcept { return rows_; }

 private:
  torch::Tensor ids_;
  torch::Tensor position_;  // [vocab]: where a token is among ids_, or -1
  torch::Tensor rows_;
};

/// The same for a Linear whose rows belong to tokens: the logits of trained tokens come from the
/// trained rows. The rows are a parameter of `tokens`, which may also sit in an Embedding.
class LORAPP_API TrainableTokensHead : public LinearAdapter {
 public:
  /// `owned`: nothing else holds `tokens`, so its parameter becomes this module's.
  TrainableTokensHead(const torch::Tensor& weight,
                      std::shared_ptr<TrainableTokens> tokens,
                      bool owned)
      : tokens_(std::move(tokens)),
        vocab_(weight.size(0)),
        original_(weight.detach().index_select(0, tokens_->ids()).to(torch::kFloat32)) {
    if (owned) register_module("rows", tokens_);
  }

  torch::Tensor delta(const torch::Tensor& x) override {
    std::vector<std::int64_t> shape = x.sizes().vec();
    shape.back() = vocab_;
    const torch::Tensor change = at::linear(x.to(torch::kFloat32), tokens_->rows() - original_);
    return torch::zeros(shape, change.options()).index_copy(-1, tokens_->ids(), change);
  }

  torch::Tensor delta_weight() override {
    const torch::Tensor change = tokens_->rows().detach() - original_;
    return torch::zeros({vocab_, change.size(1)}, change.options())
        .index_copy(0, tokens_->ids(), change);
  }

  const TrainableTokens& tokens() const noexcept { return *tokens_; }

 private:
  std::shared_ptr<TrainableTokens> tokens_;
  std::int64_t vocab_;
  torch::Tensor original_;  // [n, size]
};

}  // namespace lorapp
