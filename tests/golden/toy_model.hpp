// The toy models of this folder and their batch, packed.
#pragma once

#include "support/golden.hpp"

#include <lorapp/nn/causal_lm.hpp>

#include <ATen/Parallel.h>
#include <torch/types.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace lorapp::test {

inline constexpr const char* kToyModels[] = {"mistral", "mistral_tied", "llama"};

/// quantized: linear layers in NF4, multiplied in float32.
inline std::shared_ptr<CausalLM> load_toy(const std::string& name, bool quantized) {
  LoadOptions options;
  options.dtype = torch::kFloat32;
  if (quantized) options.quant_config = QuantConfig{.compute_dtype = torch::kFloat32};
  auto model = CausalLM::from_pretrained(golden_path(name), options);
  model->train();
  return model;
}

/// The sequences of a padded batch end to end, and what each position has to predict (-100:
/// nothing).
struct ToyBatch {
  PackedInput input;
  torch::Tensor next;
};

inline ToyBatch toy_batch(const GoldenTensors& golden) {
  const torch::Tensor ids = golden["input_ids"];
  const torch::Tensor labels = golden["labels"];
  const torch::Tensor lengths = golden["lengths"];
  std::vector<std::vector<std::int64_t>> sequences;
  std::vector<torch::Tensor> next;
  for (std::int64_t row = 0; row < ids.size(0); ++row) {
    const auto length = lengths[row].item<std::int64_t>();
    const torch::Tensor sequence = ids[row].slice(0, 0, length).contiguous();
    sequences.emplace_back(sequence.const_data_ptr<std::int64_t>(),
                           sequence.const_data_ptr<std::int64_t>() + length);
    next.push_back(torch::cat({labels[row].slice(0, 1, length), torch::full({1}, -100)}));
  }
  return {PackedInput::pack(sequences), torch::cat(next)};
}

/// The mean loss of the scored positions.
inline torch::Tensor mean_loss(const torch::Tensor& logits, const torch::Tensor& next) {
  return torch::cross_entropy_loss(logits, next);
}

}  // namespace lorapp::test
