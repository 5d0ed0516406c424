// The next-token loss: summed over scored positions only, in float32, in bounded memory.
// labels[t] is what position t predicts, as in a Batch; kIgnoreLabel positions never reach the
// head.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/packed_input.hpp>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/nonzero.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <optional>

namespace lorapp {

/// A batch as a model reads it. Ids stay on the CPU, where they are checked; the model moves them.
inline PackedInput packed_input(const Batch& batch) {
  return {batch.ids, batch.cu_seqlens, batch.positions};
}

/// Logits that are in memory at once on a CPU, in elements: 64 MiB in float32.
inline constexpr std::int64_t kMaxLogits = std::int64_t{1} << 24;

/// Rows of hidden states that go through the head together.
inline std::int64_t head_chunk_rows(std::int64_t vocab_size) {
  return std::max<std::int64_t>(1, kMaxLogits / std::max<std::int64_t>(1, vocab_size));
}

/// On a device: a GPU that lorapp has kernels for takes more at a time, 128 MiB of bfloat16 or 256
/// of float32.
LORAPP_API std::int64_t head_chunk_rows(std::int64_t vocab_size, const torch::Device& device);

namespace detail {

/// −Σ log softmax(logits)[label] by LibTorch's operations, in float32: any dtype and device.
inline torch::Tensor composed_loss(const torch::Tensor& logits, const torch::Tensor& labels) {
  return at::cross_entropy_loss(logits.to(torch::kFloat32), labels, /*weight=*/{},
                                at::Reduction::Sum);
}

/// The same sum by one kernel, in double. With `grad_scale`, logits become the gradient of
/// grad_scale · sum. Nothing, and logits as they were, unless they are float32, bfloat16 or float16
/// and contiguous, on the CPU or a GPU with kernels. Labels outside the vocabulary are an Error. On
/// a GPU it waits for the sum.
LORAPP_API std::optional<double> row_loss(const torch::Tensor& logits,
                                          const torch::Tensor& labels,
                                          std::optional<double> grad_scale);

/// Calls f(logits, labels) for chunks of the scored rows of `hidden`.
template <class F>
void for_each_loss_chunk(CausalLM& model,
                         const torch::Tensor& hidden,
                         const torch::Tensor& labels,
                         std::int64_t chunk_rows,
                         F&& f) {
  LORAPP_CHECK(hidden.dim() == 2 && labels.dim() == 1 && hidden.size(0) == labels.size(0),
               "token_loss", "hidden states ", hidden.sizes(), " and labels ", labels.sizes(),
               " do not fit; expected [T, hidden] and [T]");
  const torch::Tensor rows = at::nonzero(labels.ne(kIgnoreLabel)).squeeze(1);
  const std::int64_t count = rows.size(0);
  const std::int64_t step =
      chunk_rows > 0 ? chunk_rows : head_chunk_rows(model.config().vocab_size, hidden.device());
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const torch::Tensor chunk = rows.slice(0, begin, std::min(count, begin + step));
    f(model.lm_head(hidden.index_select(0, chunk)), labels.index_select(0, chunk));
  }
}

}  // namespace detail

/// −Σ log softmax(lm_head(hidden))[label] over the scored rows, in double. No gradients.
/// hidden [T, hidden], labels [T] int64; `chunk_rows` 0: head_chunk_rows.
inline double token_loss(CausalLM& model,
                         const torch::Tensor& hidden,
                         const torch::Tensor& labels,
                         std::int64_t chunk_rows = 0) {
  const torch::NoGradGuard no_grad;
  double sum = 0;
  const auto add = [&](const torch::Tensor& logits, const torch::Tensor& targets) {
    const std::optional<double> loss = detail::row_loss(logits, targets, std::nullopt);
    sum += loss ? *loss : detail::composed_loss(logits, targets).item<double>();
  };
  detail::for_each_loss_chunk(model, hidden, labels, chunk_rows, add);
  return sum;
}

/// The same sum; adds the gradients of `grad_scale` · sum to all parameters behind it.
///
/// The head and its backward pass run chunk by chunk down to the hidden states, the decoder's
/// backward pass once behind them: no more than one chunk of logits exists at a time, and its
/// gradient takes its place. So the head's own backward pass must do without its result; autograd
/// says so where it does not.
inline double token_loss_backward(CausalLM& model,
                                  const torch::Tensor& hidden,
                                  const torch::Tensor& labels,
                                  double grad_scale,
                                  std::int64_t chunk_rows = 0) {
  torch::Tensor leaf = hidden.detach().requires_grad_(hidden.requires_grad());
  double sum = 0;
  const auto add = [&](const torch::Tensor& logits, const torch::Tensor& targets) {
    const bool differentiate = logits.requires_grad();
    const std::optional<double> row_loss =
        detail::row_loss(logits, targets, differentiate ? std::optional(grad_scale) : std::nullopt);
    if (row_loss) {
      sum += *row_loss;
      if (differentiate) logits.backward(logits.detach());
      return;
    }
    const torch::Tensor loss = detail::composed_loss(logits, targets);
    sum += loss.item<double>();
    if (differentiate) (loss * grad_scale).backward();
  };
  detail::for_each_loss_chunk(model, leaf, labels, chunk_rows, add);
  if (leaf.requires_grad() && leaf.grad().defined()) hidden.backward(leaf.grad());
  return sum;
}

}  // namespace lorapp
