// LinearAdapter and EmbeddingAdapter: what can be plugged into a layer, e.g. LoRA.
// An adapter changes the output of its layer; it never changes the frozen weight by itself.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/ops.hpp>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>
#include <optional>

namespace lorapp {

/// A trainable addition to a Linear. It becomes the submodule "lora" of its layer, so its
/// parameters are …q_proj.lora.<name>.
struct LORAPP_API LinearAdapter : torch::nn::Module {
  LinearAdapter() = default;
  ~LinearAdapter() override = default;

  /// What is added to the output of the layer. x […, in] → […, out], in any floating dtype: a sum
  /// with a dense layer's output is taken in the wider dtype, then rounded to that of the output.
  virtual torch::Tensor delta(const torch::Tensor& x) = 0;

  /// What delta() does in a form that can be computed together with the product of a 4-bit layer,
  /// where it has one. A mask in it is that of the next delta().
  virtual std::optional<LowRank> low_rank() { return std::nullopt; }

  /// The update of the weight that delta() amounts to without dropout, [out, in]; for merging.
  virtual torch::Tensor delta_weight() = 0;

  /// The update of the bias that delta() contains, [out]; undefined where there is none.
  virtual torch::Tensor delta_bias() { return {}; }

  /// The seed of the dropout masks of the next forward passes. A mask is a pure function of this
  /// seed and the adapter's own index, so a recomputed forward pass repeats it.
  virtual void seed_dropout(std::uint64_t /*step_seed*/) {}
};

/// A trainable change of an Embedding; its submodule "lora".
struct LORAPP_API EmbeddingAdapter : torch::nn::Module {
  EmbeddingAdapter() = default;
  ~EmbeddingAdapter() override = default;

  /// The output of the layer. ids [T] int64, rows [T, size] of the table → [T, size], same dtype.
  virtual torch::Tensor adapt(const torch::Tensor& ids, const torch::Tensor& rows) = 0;

  /// Changes `table` [vocab, size] into the one whose rows adapt() gives; for merging.
  virtual void merge_into(torch::Tensor& table) = 0;
};

}  // namespace lorapp
