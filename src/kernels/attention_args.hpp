// Arguments of the attention kernels; what each computes. Query i of a sequence has the position
// keys - queries + i and sees the keys j of its own sequence with position - window < j <=
// position. All sums are f32, whatever the rows are stored in.
#pragma once

#include "kernels/float16.hpp"

#include <cstdint>

namespace lorapp::kernels {

/// Rows of a block are (query, head) pairs: all heads of a group read the same keys.
inline constexpr std::int64_t kForwardRows = 256;
inline constexpr std::int64_t kBackwardRows = 128;  // more arrays share the cache
inline constexpr std::int64_t kBlockKeys = 96;
/// Head sizes are multiples of 8 up to this.
inline constexpr std::int64_t kMaxHeadSize = 256;
/// Floats from row to row where elements of rows are factors: rows do not share a cache set.
inline constexpr std::int64_t kHeadStride = kMaxHeadSize + 16;
inline constexpr std::int64_t kRowStride = kBackwardRows + 16;

/// Floats of the work space of a call, aligned to 64 bytes: blocks of keys and values and their
/// columns, of rows and their transposes, of scores.
inline constexpr std::int64_t kKeySpace = (kBlockKeys + 4) * kHeadStride;
inline constexpr std::int64_t kRowSpace = kBackwardRows * kHeadStride;
inline constexpr std::int64_t kScoreSpace = kBlockKeys * kRowStride;
inline constexpr std::int64_t kForwardSpace =
    2 * kKeySpace + 2 * kForwardRows * kMaxHeadSize + kScoreSpace;
inline constexpr std::int64_t kBackwardSpace = 3 * kKeySpace + 5 * kRowSpace + 2 * kScoreSpace;

/// Heads of a group at most.
inline constexpr std::int64_t kMaxGroup = kBackwardRows;
/// Queries of a block of the forward pass.
LORAPP_HD std::int64_t block_queries(std::int64_t heads) { return kForwardRows / heads; }

/// Rows of one head size: [token, head, element]; the elements of a row are contiguous.
struct AttentionRows {
  void* data;
  std::int64_t token_stride, head_stride;  // in elements
};

/// One sequence and one group of heads: those that read the keys of one head.
struct AttentionGroup {
  Float type;       // of q, k, v, and of every other row
  AttentionRows q;  // [queries, heads]
  AttentionRows k;  // [keys], the last `queries` of which are the queries' own
  AttentionRows v;
  std::int64_t queries, keys;
  std::int64_t heads;
  std::int64_t head_size;
  std::int64_t window;  // 0: none
  float scale;          // of q · k
};

/// out = softmax(scale · q kᵀ) v and log Σ exp(scale · q kᵀ) of the queries [first, last);
/// `first` is a multiple of block_queries. Returns the pairs of a row and a key that were computed.
struct AttentionForwardArgs {
  AttentionGroup group;
  std::int64_t first, last;
  AttentionRows out;
  float* log_sum;  // [queries, heads]
  std::int64_t log_sum_stride;
  float* space;  // [kForwardSpace]
};

/// The gradients of q, k and v. Returns the pairs that were computed.
struct AttentionBackwardArgs {
  AttentionGroup group;  // queries == keys
  AttentionRows out, dout;
  const float* log_sum;
  std::int64_t log_sum_stride;
  AttentionRows dq, dk, dv;
  float* sums;   // [2, padded_keys, padded_head_size], aligned to 64 bytes
  float* space;  // [kBackwardSpace]
};

/// Rows of AttentionBackwardArgs::sums, and their elements. Keys are taken in steps of up to four
/// from the first that a block sees, wherever a window lets that be.
LORAPP_HD std::int64_t padded_keys(std::int64_t keys) { return keys + 3; }
LORAPP_HD std::int64_t padded_head_size(std::int64_t head_size) {
  return (head_size + 31) / 32 * 32;
}

/// One query, the last: the keys [first, last), without the division by the sum, so that parts can
/// be added: sum = Σ exp(scale · q · k - max), out = Σ exp(scale · q · k - max) v.
struct AttentionDecodeArgs {
  AttentionGroup group;  // window is not read
  std::int64_t first, last;
  float* out;      // [heads, head_size]
  float* maximum;  // [heads]
  float* sum;      // [heads]
  float* space;    // [heads · kHeadStride]
};

}  // namespace lorapp::kernels
