// Cuts attention into units of work for the kernels, and shares them among threads.
// Private to src/nn and its tests.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lorapp::detail {

/// True if the kernels take these tensors [.., .., d]: on the CPU, of one dtype they know, with a
/// head size they know.
bool attention_kernels_apply(const at::Tensor& q,
                             std::int64_t kv_heads,
                             const at::Tensor& k,
                             const at::Tensor& v);

struct PackedAttention {
  at::Tensor out;          // [T, heads, d]
  at::Tensor log_sum;      // [T, heads], float32: log Σ exp of the scores
  std::int64_t pairs = 0;  // of a query (of one head) and a key that were computed
};

/// q [T, heads, d], k and v [T, kv_heads, d].
PackedAttention packed_attention_forward(const at::Tensor& q,
                                         const at::Tensor& k,
                                         const at::Tensor& v,
                                         const std::vector<std::int64_t>& cu_seqlens,
                                         std::int64_t window);

struct AttentionGradients {
  at::Tensor q, k, v;
  std::int64_t pairs = 0;
};

AttentionGradients packed_attention_backward(const at::Tensor& q,
                                             const at::Tensor& k,
                                             const at::Tensor& v,
                                             const PackedAttention& forward,
                                             const at::Tensor& dout,
                                             const std::vector<std::int64_t>& cu_seqlens,
                                             std::int64_t window);

/// q [S, heads, d], k and v [kv_heads, L, d] → [S, heads, d].
at::Tensor cached_attention_forward(const at::Tensor& q,
                                    const at::Tensor& k,
                                    const at::Tensor& v,
                                    std::int64_t window);

}  // namespace lorapp::detail
