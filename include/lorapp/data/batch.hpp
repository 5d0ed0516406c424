// Batch: several examples end to end, with no padding.
// Convention: T = all tokens, B = examples; example b is [cu_seqlens[b], cu_seqlens[b + 1]); labels
// are SHIFTED: labels[t] is what position t has to predict.
#pragma once

#include <lorapp/data/example.hpp>
#include <lorapp/error.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

namespace lorapp {

/// What a model's forward and the loss read.
struct Batch {
  torch::Tensor ids;                ///< [T] int64
  std::vector<int64_t> cu_seqlens;  ///< B + 1 offsets, the first 0, the last T
  torch::Tensor positions;          ///< [T] int64, from 0 within each example
  torch::Tensor
      labels;  ///< [T] int64, shifted within each example; its last position is kIgnoreLabel
  int64_t num_labels = 0;  ///< labels that are not kIgnoreLabel

  int64_t num_tokens() const { return cu_seqlens.empty() ? 0 : cu_seqlens.back(); }
  int64_t num_examples() const {
    return cu_seqlens.empty() ? 0 : static_cast<int64_t>(cu_seqlens.size()) - 1;
  }
};

/// Lays examples end to end. Throws Error for no examples, an empty example, or ids and labels of
/// different lengths.
inline Batch collate(std::span<const Example* const> examples) {
  LORAPP_CHECK(!examples.empty(), "collate", "a batch needs at least one example");
  Batch batch;
  batch.cu_seqlens.reserve(examples.size() + 1);
  batch.cu_seqlens.push_back(0);
  for (const Example* example : examples) {
    const std::size_t b = batch.cu_seqlens.size() - 1;
    LORAPP_CHECK(!example->ids.empty(), "collate", "example ", b, " of the batch has no tokens");
    LORAPP_CHECK(example->ids.size() == example->labels.size(), "collate", "example ", b,
                 " of the batch has ", example->ids.size(), " ids but ", example->labels.size(),
                 " labels");
    batch.cu_seqlens.push_back(batch.cu_seqlens.back() + static_cast<int64_t>(example->ids.size()));
  }

  const auto int64_cpu = torch::TensorOptions().dtype(torch::kInt64).device(torch::kCPU);
  batch.ids = torch::empty({batch.num_tokens()}, int64_cpu);
  batch.positions = torch::empty({batch.num_tokens()}, int64_cpu);
  batch.labels = torch::empty({batch.num_tokens()}, int64_cpu);
  int64_t* ids = batch.ids.mutable_data_ptr<int64_t>();
  int64_t* positions = batch.positions.mutable_data_ptr<int64_t>();
  int64_t* labels = batch.labels.mutable_data_ptr<int64_t>();
  for (const Example* example : examples) {
    ids = std::copy(example->ids.begin(), example->ids.end(), ids);
    const auto length = static_cast<int64_t>(example->ids.size());
    for (int64_t i = 0; i < length; ++i) *positions++ = i;
    // Position t predicts the token after it, so the first label falls away and the last position
    // predicts nothing.
    labels = std::copy(example->labels.begin() + 1, example->labels.end(), labels);
    *labels++ = kIgnoreLabel;
    batch.num_labels += std::count_if(example->labels.begin() + 1, example->labels.end(),
                                      [](int64_t label) { return label != kIgnoreLabel; });
  }
  return batch;
}

}  // namespace lorapp
