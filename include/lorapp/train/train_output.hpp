// TrainOutput: what a training run returns, and the count of its operations.
// Times are in seconds; means and rates count the steps of one call of Trainer::train.
#pragma once

#include <lorapp/nn/traverse.hpp>

#include <torch/nn/module.h>
#include <torch/types.h>

#include <cstdint>

namespace lorapp {

/// What Trainer::train returns.
struct TrainOutput {
  std::int64_t global_step = 0;
  double train_loss = 0;     ///< mean over the steps of this call
  double train_runtime = 0;  ///< of the whole call
  double train_samples_per_second = 0;
  double train_steps_per_second = 0;
  double train_tokens_per_second = 0;  ///< input tokens, first forward to last optimizer step
  std::int64_t num_input_tokens_seen = 0;
  double total_flos = 0;
  bool stopped = false;  ///< ended before the last step by the stop flag or a callback
};

namespace detail {

/// Floating-point operations a token costs in one step, as transformers counts them: six for each
/// parameter but the embedding of the tokens.
inline double flos_per_token(const torch::nn::Module& model) {
  std::int64_t parameters = num_parameters(model);
  for (const auto& parameter : model.named_parameters()) {
    if (parameter.key().ends_with("embed_tokens.weight")) parameters -= parameter.value().numel();
  }
  return 6.0 * static_cast<double>(parameters);
}

}  // namespace detail

}  // namespace lorapp
