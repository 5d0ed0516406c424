// Attention of packed sequences and of queries behind a cache, by the kernels of this library:
// causal, grouped, with an optional sliding window. attention.hpp defines what they compute.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace lorapp {

/// attend() of every sequence: q [T, heads, d], k and v [T, kv_heads, d], sequence i has the rows
/// from cu_seqlens[i] to cu_seqlens[i + 1] (from 0 to T in all); `window` W, or 0 for none.
/// Returns [T, heads · d] in the dtype of q. Work is proportional to the pairs of tokens that see
/// each other, and memory to T: scores are kept nowhere, backward computes them again (q, k, v, the
/// result and one float a row are saved). The same bits for any number of threads.
/// On the CPU in float32, bfloat16 or float16, with head sizes that are multiples of 8 up to 256,
/// sums are float32 and second derivatives an Error; anything else takes attend().
LORAPP_API torch::Tensor packed_attention(const torch::Tensor& q,
                                          const torch::Tensor& k,
                                          const torch::Tensor& v,
                                          const std::vector<std::int64_t>& cu_seqlens,
                                          std::int64_t window);

/// attend() without gradients: q [S, heads, d] are the last S of L positions, k and v
/// [kv_heads, L, d] as a KvCache holds them. Keys and values of a group of heads are read once.
LORAPP_API torch::Tensor cached_attention(const torch::Tensor& q,
                                          const torch::Tensor& k,
                                          const torch::Tensor& v,
                                          std::int64_t window);

}  // namespace lorapp
