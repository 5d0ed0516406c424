// LoadOptions: how CausalLM::from_pretrained reads a model folder.
// Tensors are read one at a time; a quantized model is never in memory dense.
#pragma once

#include <lorapp/quant/config.hpp>

#include <torch/types.h>

#include <optional>

namespace lorapp {

/// Options of CausalLM::from_pretrained.
struct LoadOptions {
  /// Quantizes the linear layers of the decoder; nothing: dense. A folder that is 4-bit already
  /// stays as it is: then only compute_dtype counts, and nothing means the one in its config.json.
  std::optional<QuantConfig> quant_config = std::nullopt;
  /// What every weight is converted to, before it is quantized too; nothing: config.json's dtype,
  /// or each tensor's own where that names none.
  std::optional<torch::Dtype> dtype = std::nullopt;
  torch::Device device = torch::kCPU;
};

}  // namespace lorapp
