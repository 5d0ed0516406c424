// evaluate_loss: the mean token loss of a model over examples.
// Sums over all scored tokens of all examples, then divides once: batches do not weigh in.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/train/data_plan.hpp>
#include <lorapp/train/loss.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace lorapp {

/// Puts a module into train or eval mode for a scope.
class [[nodiscard]] ModeGuard {
 public:
  ModeGuard(torch::nn::Module& module, bool training)
      : module_(module), before_(module.is_training()) {
    module_.train(training);
  }
  ~ModeGuard() { module_.train(before_); }
  ModeGuard(const ModeGuard&) = delete;
  ModeGuard& operator=(const ModeGuard&) = delete;

 private:
  torch::nn::Module& module_;
  bool before_;
};

/// What evaluate_loss finds.
struct LossResult {
  double loss = 0;          ///< Σ token losses ÷ scored tokens
  std::int64_t tokens = 0;  ///< scored tokens
  std::int64_t examples = 0;

  double perplexity() const { return std::exp(loss); }
};

namespace detail {

/// The device a model computes on.
inline torch::Device device_of(const torch::nn::Module& module) {
  for (const torch::Tensor& parameter : module.parameters()) return parameter.device();
  return torch::kCPU;
}

}  // namespace detail

/// The loss over all of `source`, in eval mode and without gradients, `batch_size` examples at a
/// time. Throws Error if nothing is scored, or if a loss is not finite, naming its examples.
template <ExampleSource D>
LossResult evaluate_loss(CausalLM& model, const D& source, std::int64_t batch_size = 1) {
  LORAPP_CHECK(batch_size >= 1, "evaluate", "batch_size is ", batch_size, "; expected 1 or more");
  const torch::NoGradGuard no_grad;
  const ModeGuard eval(model, false);
  const torch::Device device = detail::device_of(model);
  std::vector<std::int64_t> order(static_cast<std::size_t>(source.size()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);

  LossResult result;
  result.examples = static_cast<std::int64_t>(order.size());
  double sum = 0;
  for (std::int64_t begin = 0; begin < result.examples; begin += batch_size) {
    const std::int64_t end = std::min(begin + batch_size, result.examples);
    const Batch batch = detail::gather_batch(source, order, begin, end);
    const torch::Tensor hidden = model.hidden_states(packed_input(batch));
    const double loss = token_loss(model, hidden, batch.labels.to(device));
    LORAPP_CHECK(std::isfinite(loss), "evaluate", "the loss of examples ", begin, " to ", end - 1,
                 " is ", loss);
    sum += loss;
    result.tokens += batch.num_labels;
  }
  LORAPP_CHECK(result.tokens > 0, "evaluate", "no token of the ", result.examples,
               " examples is scored");
  result.loss = sum / static_cast<double>(result.tokens);
  return result;
}

}  // namespace lorapp
