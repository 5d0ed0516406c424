// The next-token loss: summed over scored positions only, in float32, in bounded memory.
// labels[t] is what position t predicts, as in a Batch; kIgnoreLabel positions never reach the
// head.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/packed_input.hpp>

#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/nonzero.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include <algorithm>
#include <cstdint>

namespace lorapp {

/// A batch as a model reads it, on `device`.
inline PackedInput packed_input(const Batch& batch, torch::Device device = torch::kCPU) {
  return {batch.ids.to(device), batch.cu_seqlens, batch.positions.to(device)};
}

/// Logits that are in memory at once, in elements: 64 MiB in float32.
inline constexpr std::int64_t kMaxLogits = std::int64_t{1} << 24;

/// Rows of hidden states that go through the head together.
inline std::int64_t head_chunk_rows(std::int64_t vocab_size) {
  return std::max<std::int64_t>(1, kMaxLogits / std::max<std::int64_t>(1, vocab_size));
}

namespace detail {

/// Calls f(sum of token losses of one chunk, float32 scalar) for the scored rows of `hidden`.
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
      chunk_rows > 0 ? chunk_rows : head_chunk_rows(model.config().vocab_size);
  for (std::int64_t begin = 0; begin < count; begin += step) {
    const torch::Tensor chunk = rows.slice(0, begin, std::min(count, begin + step));
    const torch::Tensor logits = model.lm_head(hidden.index_select(0, chunk));
    f(at::cross_entropy_loss(logits.to(torch::kFloat32), labels.index_select(0, chunk),
                             /*weight=*/{}, at::Reduction::Sum));
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
  detail::for_each_loss_chunk(model, hidden, labels, chunk_rows,
                              [&](const torch::Tensor& loss) { sum += loss.item<double>(); });
  return sum;
}

/// The same sum; adds the gradients of `grad_scale` · sum to all parameters behind it.
///
/// The head and its backward pass run chunk by chunk down to the hidden states, the decoder's
/// backward pass once behind them: no more than one chunk of logits exists at a time.
inline double token_loss_backward(CausalLM& model,
                                  const torch::Tensor& hidden,
                                  const torch::Tensor& labels,
                                  double grad_scale,
                                  std::int64_t chunk_rows = 0) {
  torch::Tensor leaf = hidden.detach().requires_grad_(hidden.requires_grad());
  double sum = 0;
  detail::for_each_loss_chunk(model, leaf, labels, chunk_rows, [&](const torch::Tensor& loss) {
    sum += loss.item<double>();
    if (loss.requires_grad()) (loss * grad_scale).backward();
  });
  if (leaf.requires_grad() && leaf.grad().defined()) hidden.backward(leaf.grad());
  return sum;
}

}  // namespace lorapp
