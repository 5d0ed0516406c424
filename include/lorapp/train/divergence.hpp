// compare_models: how far one model's predictions are from another's, token by token.
// KL(P‖Q) = Σ p (log p − log q) over the vocabulary, in nats and in double, at scored positions.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/train/data_plan.hpp>
#include <lorapp/train/evaluate.hpp>
#include <lorapp/train/loss.hpp>

#include <ATen/ops/log_softmax.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace lorapp {

/// What compare_models finds. P is the reference.
struct Divergence {
  double mean_kl = 0;  ///< Σ KL(P‖Q) ÷ scored tokens
  double max_kl = 0;
  double same_top = 0;  ///< the share of scored tokens whose likeliest next token is the same
  LossResult reference;
  LossResult other;
};

namespace detail {

/// Sums over some rows of logits.
struct DivergenceSums {
  double kl = 0;
  double max_kl = 0;
  double same_top = 0;
  double reference_loss = 0;
  double other_loss = 0;
};

/// Adds rows to the sums: reference and other [n, vocab], labels [n] int64 on the CPU.
inline void add_divergence(const torch::Tensor& reference,
                           const torch::Tensor& other,
                           const torch::Tensor& labels,
                           DivergenceSums& sums) {
  const auto log_probabilities = [](const torch::Tensor& logits) {
    return at::log_softmax(logits.to(torch::kCPU), -1, torch::kFloat64);
  };
  const torch::Tensor p = log_probabilities(reference);
  const torch::Tensor q = log_probabilities(other);
  // Never below zero but by rounding.
  const torch::Tensor kl = (p.exp() * (p - q)).sum(-1).clamp_min(0);
  const torch::Tensor at_labels = labels.unsqueeze(-1);
  sums.kl += kl.sum().item<double>();
  sums.max_kl = std::max(sums.max_kl, kl.max().item<double>());
  sums.same_top += p.argmax(-1).eq(q.argmax(-1)).sum().item<double>();
  sums.reference_loss -= p.gather(-1, at_labels).sum().item<double>();
  sums.other_loss -= q.gather(-1, at_labels).sum().item<double>();
}

}  // namespace detail

/// Compares two models of one vocabulary over all of `source`, in eval mode and without gradients.
/// Logits are made for a few thousand positions at a time at most (`chunk_rows` 0: fewer where the
/// vocabulary is large). Throws Error if nothing is scored, or if a number is not finite, naming
/// its examples.
template <ExampleSource D>
Divergence compare_models(CausalLM& reference,
                          CausalLM& other,
                          const D& source,
                          std::int64_t batch_size = 1,
                          std::int64_t chunk_rows = 0) {
  constexpr const char* kOp = "compare_models";
  LORAPP_CHECK(batch_size >= 1, kOp, "batch_size is ", batch_size, "; expected 1 or more");
  const std::int64_t vocab = reference.config().vocab_size;
  LORAPP_CHECK(vocab == other.config().vocab_size, kOp, "the vocabularies have ", vocab, " and ",
               other.config().vocab_size, " tokens; expected one vocabulary");
  const torch::NoGradGuard no_grad;
  const ModeGuard reference_mode(reference, false);
  const ModeGuard other_mode(other, false);
  // Several double copies of a chunk exist, where a loss needs one in float32.
  const std::int64_t step =
      chunk_rows > 0 ? chunk_rows : std::max<std::int64_t>(1, head_chunk_rows(vocab) / 8);
  std::vector<std::int64_t> order(static_cast<std::size_t>(source.size()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);

  Divergence result;
  std::int64_t tokens = 0;
  detail::DivergenceSums sums;
  const auto count = static_cast<std::int64_t>(order.size());
  for (std::int64_t begin = 0; begin < count; begin += batch_size) {
    const std::int64_t end = std::min(begin + batch_size, count);
    const Batch batch = detail::gather_batch(source, order, begin, end);
    const torch::Tensor rows = at::nonzero(batch.labels.ne(kIgnoreLabel)).squeeze(1);
    const torch::Tensor labels = batch.labels.index_select(0, rows);
    const auto scored = [&](CausalLM& model) {
      const torch::Device device = detail::device_of(model);
      return model.hidden_states(packed_input(batch)).index_select(0, rows.to(device));
    };
    const torch::Tensor left = scored(reference);
    const torch::Tensor right = scored(other);
    for (std::int64_t row = 0; row < rows.size(0); row += step) {
      const std::int64_t last = std::min(row + step, rows.size(0));
      detail::add_divergence(reference.lm_head(left.slice(0, row, last)),
                             other.lm_head(right.slice(0, row, last)), labels.slice(0, row, last),
                             sums);
    }
    tokens += rows.size(0);
    LORAPP_CHECK(std::isfinite(sums.kl + sums.reference_loss + sums.other_loss), kOp,
                 "the divergence or a loss of examples ", begin, " to ", end - 1, " is not finite");
  }
  LORAPP_CHECK(tokens > 0, kOp, "no token of the ", count, " examples is scored");
  const auto mean = [&](double sum) { return sum / static_cast<double>(tokens); };
  result.mean_kl = mean(sums.kl);
  result.max_kl = sums.max_kl;
  result.same_top = mean(sums.same_top);
  result.reference = {mean(sums.reference_loss), tokens, count};
  result.other = {mean(sums.other_loss), tokens, count};
  return result;
}

}  // namespace lorapp
