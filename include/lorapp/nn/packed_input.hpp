// PackedInput: the tokens of several sequences end to end, with no padding.
// cu_seqlens = {0, end of sequence 0, …, T}; positions restart in every sequence.
#pragma once

#include <lorapp/error.hpp>

#include <torch/types.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace lorapp {

/// What a forward pass reads. Sequences do not see each other.
struct PackedInput {
  torch::Tensor ids;                     ///< [T] int64
  std::vector<std::int64_t> cu_seqlens;  ///< B + 1 entries
  torch::Tensor positions;               ///< [T] int64, the rotary position of each token

  std::int64_t num_tokens() const { return ids.size(0); }
  std::int64_t num_sequences() const { return static_cast<std::int64_t>(cu_seqlens.size()) - 1; }

  /// One sequence whose first token stands at `first_position` (the length of a KV cache).
  static PackedInput single(const std::vector<std::int64_t>& ids, std::int64_t first_position = 0) {
    const auto count = static_cast<std::int64_t>(ids.size());
    return {torch::tensor(ids, torch::kInt64),
            {0, count},
            torch::arange(first_position, first_position + count, torch::kInt64)};
  }

  /// Several sequences, each from position 0.
  static PackedInput pack(const std::vector<std::vector<std::int64_t>>& sequences) {
    std::vector<std::int64_t> ids;
    std::vector<std::int64_t> positions;
    std::vector<std::int64_t> ends = {0};
    for (const auto& sequence : sequences) {
      ids.insert(ids.end(), sequence.begin(), sequence.end());
      for (std::size_t i = 0; i < sequence.size(); ++i) {
        positions.push_back(static_cast<std::int64_t>(i));
      }
      ends.push_back(static_cast<std::int64_t>(ids.size()));
    }
    return {torch::tensor(ids, torch::kInt64), std::move(ends),
            torch::tensor(positions, torch::kInt64)};
  }

  /// Throws Error unless the three parts fit together: at least one sequence, none empty, the last
  /// end T, as many positions as ids.
  void validate() const {
    LORAPP_CHECK(ids.defined() && ids.dim() == 1 && ids.scalar_type() == torch::kInt64,
                 "packed_input", "ids must be an int64 tensor of one dimension");
    LORAPP_CHECK(positions.defined() && positions.sizes() == ids.sizes() &&
                     positions.scalar_type() == torch::kInt64,
                 "packed_input",
                 "positions must be an int64 tensor with one entry for each of the ", ids.size(0),
                 " ids");
    LORAPP_CHECK(
        cu_seqlens.size() >= 2 && cu_seqlens.front() == 0 && cu_seqlens.back() == ids.size(0),
        "packed_input", "cu_seqlens must run from 0 to the number of ids, ", ids.size(0));
    for (std::size_t i = 1; i < cu_seqlens.size(); ++i) {
      LORAPP_CHECK(cu_seqlens[i] > cu_seqlens[i - 1], "packed_input", "sequence ", i - 1,
                   " is empty: it runs from ", cu_seqlens[i - 1], " to ", cu_seqlens[i]);
    }
  }
};

}  // namespace lorapp
