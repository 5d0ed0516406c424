// Sampler: scores of the next token → the next token, in transformers' order of steps.
// Convention: scores are [V] float32 on the CPU; a token that may not come has score -inf.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/generate/generation_config.hpp>

#include <ATen/CPUGeneratorImpl.h>
#include <torch/types.h>

#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace lorapp {

namespace detail {

inline constexpr double kExcluded = -std::numeric_limits<double>::infinity();

}  // namespace detail

/// Divides positive and multiplies negative scores of every token in `tokens`, once each
/// (Keskar et al., "CTRL", 2019, §4.1).
inline torch::Tensor penalize_repetition(const torch::Tensor& scores,
                                         std::span<const int64_t> tokens,
                                         double penalty) {
  if (penalty == 1.0 || tokens.empty()) return scores;
  const torch::Tensor index =
      torch::tensor(c10::IntArrayRef(tokens.data(), tokens.size()), torch::kInt64);
  const torch::Tensor old = scores.index_select(0, index);
  return scores.index_put({index}, torch::where(old < 0, old * penalty, old / penalty));
}

/// Excludes the given tokens, e.g. the end tokens while a text is too short. Error for an id that
/// has no score.
inline torch::Tensor exclude_tokens(const torch::Tensor& scores, std::span<const int64_t> tokens) {
  if (tokens.empty()) return scores;
  for (const int64_t token : tokens) {
    LORAPP_CHECK(token >= 0 && token < scores.size(0), "sampler", "token id ", token,
                 " is outside the vocabulary of ", scores.size(0));
  }
  return scores.index_fill(
      0, torch::tensor(c10::IntArrayRef(tokens.data(), tokens.size()), torch::kInt64),
      detail::kExcluded);
}

/// Keeps the k best scores and whatever ties with the k-th; 0 keeps all (Fan et al., 2018).
inline torch::Tensor keep_top_k(const torch::Tensor& scores, int64_t k) {
  if (k == 0 || k >= scores.size(0)) return scores;
  const torch::Tensor kth = std::get<0>(torch::topk(scores, k))[k - 1];
  return scores.masked_fill(scores < kth, detail::kExcluded);
}

/// Drops the unlikeliest tokens while their mass together is at most 1 − p; the best always stays
/// (nucleus sampling: Holtzman et al., 2020). Of tied tokens the lower id goes first.
inline torch::Tensor keep_top_p(const torch::Tensor& scores, double p) {
  if (p >= 1.0) return scores;
  const auto [ascending, order] =
      torch::sort(scores, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  torch::Tensor drop = ascending.softmax(0).cumsum(0) <= 1.0 - p;
  drop[-1] = false;
  return scores.masked_fill(torch::empty_like(drop).scatter_(0, order, drop), detail::kExcluded);
}

/// Drops tokens less likely than p × the likeliest one (Nguyen et al., 2024).
inline torch::Tensor keep_min_p(const torch::Tensor& scores, double p) {
  if (p == 0.0) return scores;
  const torch::Tensor probabilities = scores.softmax(0);
  const torch::Tensor best = probabilities.max();
  return scores.masked_fill(torch::logical_and(probabilities < best * p, probabilities != best),
                            detail::kExcluded);
}

/// The best score's token; of equal ones the lowest id.
inline int64_t greedy_token(const torch::Tensor& scores) {
  return (scores == scores.max()).nonzero()[0].item<int64_t>();
}

/// Chooses tokens one after the other. With do_sample it draws from a generator of its own, seeded
/// by config.seed: the draws are those of transformers on a CPU after torch.manual_seed(seed).
class Sampler {
 public:
  /// `end_tokens`: what min_new_tokens keeps away. Throws Error for settings outside their range.
  Sampler(GenerationConfig config, std::vector<int64_t> end_tokens)
      : config_(std::move(config)), end_tokens_(std::move(end_tokens)) {
    config_.validate();
    generator_ = at::make_generator<at::CPUGeneratorImpl>(config_.seed);
  }

  /// The next token, from the logits [V] (any floating dtype and device), the tokens so far
  /// (`context`: prompt, then new ones) and how many of them are new. Throws Error if a logit is
  /// NaN or infinite.
  int64_t next(const torch::Tensor& logits, std::span<const int64_t> context, int64_t num_new) {
    LORAPP_CHECK(logits.dim() == 1, "sampler", "logits have shape ", logits.sizes(),
                 ", expected one dimension");
    torch::Tensor scores = logits.to(torch::kCPU, torch::kFloat32);
    const torch::Tensor finite = torch::isfinite(scores);
    LORAPP_CHECK(finite.all().item<bool>(), "sampler",
                 scores.numel() - finite.sum().item<int64_t>(), " of ", scores.numel(),
                 " logits of new token ", num_new + 1,
                 " are NaN or infinite, expected finite numbers");

    scores = penalize_repetition(scores, context, config_.repetition_penalty);
    if (num_new < config_.min_new_tokens) scores = exclude_tokens(scores, end_tokens_);
    if (!config_.do_sample) return greedy_token(scores);

    if (config_.temperature != 1.0) scores = scores / config_.temperature;
    scores = keep_top_k(scores, config_.top_k);
    scores = keep_top_p(scores, config_.top_p);
    scores = keep_min_p(scores, config_.min_p);
    return torch::multinomial(scores.softmax(0), 1, /*replacement=*/false, generator_)
        .item<int64_t>();
  }

 private:
  GenerationConfig config_;
  std::vector<int64_t> end_tokens_;
  torch::Generator generator_;
};

}  // namespace lorapp
