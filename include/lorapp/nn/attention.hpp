// Causal grouped-query attention over packed sequences, with an optional sliding window.
// Query i sees key j if and only if i - W < j <= i, in its own sequence.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/checkpointing.hpp>
#include <lorapp/nn/kv_cache.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/nn/packed_attention.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace lorapp {

/// What all layers of one forward pass share.
struct SequenceContext {
  std::vector<std::int64_t> cu_seqlens;
  Rotation rotation;
  KvCache* cache = nullptr;  ///< null in training
  bool selective = false;    ///< CheckpointingMode::selective
};

namespace detail {

/// True where query `first_query` + row sees key `first_key` + column; [queries, keys].
inline torch::Tensor visible(std::int64_t first_query,
                             std::int64_t queries,
                             std::int64_t first_key,
                             std::int64_t keys,
                             std::int64_t window,
                             torch::Device device) {
  const std::int64_t diagonal = first_query - first_key;
  torch::Tensor mask = at::ones({queries, keys}, torch::dtype(torch::kBool).device(device));
  mask.tril_(diagonal);
  if (window > 0) mask.triu_(diagonal - window + 1);
  return mask;
}

/// Queries that share one mask: bounds its memory, and the work beyond a sliding window.
constexpr std::int64_t kQueryBlock = 1024;

}  // namespace detail

/// Attention of one sequence: softmax(q kᵀ / √d) v over the visible keys. What packed_attention and
/// cached_attention compute, by LibTorch: on any device and in any dtype.
/// q [S, heads, d] are the last S of L positions, k and v [kv_heads, L, d]; head h reads the keys
/// of head h / (heads / kv_heads). `window` W, or 0 for none. Returns [S, heads · d].
inline torch::Tensor attend(const torch::Tensor& q,
                            const torch::Tensor& k,
                            const torch::Tensor& v,
                            std::int64_t window) {
  const std::int64_t count = q.size(0);
  const std::int64_t heads = q.size(1);
  const std::int64_t size = q.size(2);
  const std::int64_t kv_heads = k.size(0);
  const std::int64_t length = k.size(1);
  const bool windowed = window > 0 && window < length;
  if (count == 1) {
    // The heads of a group become the rows of one product: its keys are read once.
    const std::int64_t first = windowed ? length - window : 0;
    return at::scaled_dot_product_attention(q.reshape({1, kv_heads, heads / kv_heads, size}),
                                            k.slice(1, first).unsqueeze(0),
                                            v.slice(1, first).unsqueeze(0))
        .reshape({1, heads * size});
  }
  const auto product = [&](const torch::Tensor& queries, std::int64_t first_key,
                           std::int64_t last_key, const std::optional<torch::Tensor>& mask) {
    return at::scaled_dot_product_attention(queries.transpose(0, 1).unsqueeze(0),
                                            k.slice(1, first_key, last_key).unsqueeze(0),
                                            v.slice(1, first_key, last_key).unsqueeze(0), mask,
                                            /*dropout_p=*/0.0,
                                            /*is_causal=*/!mask.has_value(),
                                            /*scale=*/std::nullopt,
                                            /*enable_gqa=*/kv_heads != heads)
        .squeeze(0)
        .transpose(0, 1)
        .reshape({queries.size(0), heads * size});
  };
  if (count == length && !windowed) return product(q, 0, length, std::nullopt);
  std::vector<torch::Tensor> blocks;
  const std::int64_t past = length - count;
  for (std::int64_t begin = 0; begin < count; begin += detail::kQueryBlock) {
    const std::int64_t end = std::min(count, begin + detail::kQueryBlock);
    const std::int64_t first_key =
        windowed ? std::max<std::int64_t>(0, past + begin - window + 1) : 0;
    const std::int64_t last_key = past + end;
    blocks.push_back(
        product(q.slice(0, begin, end), first_key, last_key,
                detail::visible(past + begin, end - begin, first_key, last_key - first_key,
                                windowed ? window : 0, q.device())));
  }
  return blocks.size() == 1 ? blocks.front() : at::cat(blocks, 0);
}

class LORAPP_API AttentionImpl : public torch::nn::Module {
 public:
  AttentionImpl(const ModelConfig& config, std::size_t layer_index)
      : q_proj(config.hidden_size, config.num_attention_heads * config.head_size()),
        k_proj(config.hidden_size, config.num_key_value_heads * config.head_size()),
        v_proj(config.hidden_size, config.num_key_value_heads * config.head_size()),
        o_proj(config.num_attention_heads * config.head_size(), config.hidden_size),
        head_size_(config.head_size()),
        sliding_window_(config.window(layer_index)),
        layer_index_(layer_index) {
    register_module("q_proj", q_proj);
    register_module("k_proj", k_proj);
    register_module("v_proj", v_proj);
    register_module("o_proj", o_proj);
    if (!config.has_qk_norm()) return;
    q_norm = register_module("q_norm", RMSNorm(head_size_, config.rms_norm_eps));
    k_norm = register_module("k_norm", RMSNorm(head_size_, config.rms_norm_eps));
  }

  /// x [T, hidden] → [T, hidden].
  torch::Tensor forward(const Activation& x, const SequenceContext& context) {
    return o_proj(inner(x, context));
  }

  /// residual + forward(x, context).
  torch::Tensor forward_onto(const torch::Tensor& residual,
                             const Activation& x,
                             const SequenceContext& context) {
    return o_proj->forward_onto(residual, inner(x, context));
  }

  Linear q_proj;
  Linear k_proj;
  Linear v_proj;
  Linear o_proj;
  /// Over one head's dimensions; null in the families without them.
  RMSNorm q_norm{nullptr};
  RMSNorm k_norm{nullptr};

 private:
  // What o_proj reads.
  torch::Tensor inner(const Activation& x, const SequenceContext& context) {
    const auto qkv = LinearImpl::forward_each({q_proj.get(), k_proj.get(), v_proj.get()}, x);
    torch::Tensor q = split_heads(qkv[0]);
    torch::Tensor k = split_heads(qkv[1]);
    if (q_norm) {  // whose kernel reads rows without gaps
      q = q_norm(q.contiguous());
      k = k_norm(k.contiguous());
    }
    q = rotate(q, context.rotation);
    const torch::Tensor v = split_heads(qkv[2]);
    const std::int64_t window = sliding_window_.value_or(0);
    if (context.cache != nullptr) {
      const KvCache::Rows rows = context.cache->extend(layer_index_, k, sliding_window_);
      rotate_into(rows.new_keys, k, context.rotation);
      rows.new_values.copy_(v);
      return cached_attention(q, rows.keys, rows.values, window);
    }
    k = rotate(k, context.rotation);
    return packed_attention(q, k, v, context.cu_seqlens, window);
  }

  // [T, heads · d] → [T, heads, d]
  torch::Tensor split_heads(const torch::Tensor& x) const {
    return x.view({x.size(0), -1, head_size_});
  }

  std::int64_t head_size_;
  std::optional<std::int64_t> sliding_window_;
  std::size_t layer_index_;
};
TORCH_MODULE(Attention);

}  // namespace lorapp
