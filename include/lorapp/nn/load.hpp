// LoadOptions: how CausalLM::from_pretrained reads a model folder.
// Tensors are read one at a time; a quantized model is never in memory dense.
#pragma once

#include <lorapp/quant/config.hpp>

#include <torch/types.h>

#include <filesystem>
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
  /// Holds the head's weight in 8 bits (DecoderLM::quantize_head), whatever the other weights are.
  bool head_8bit = false;
  /// A folder that keeps what quant_config makes of a model, so that the next start maps it in
  /// instead of quantizing again; made where it is missing. Nothing is ever deleted from it: a
  /// folder in it may be removed at any time. Empty: none.
  std::filesystem::path quant_cache = {};
};

}  // namespace lorapp
