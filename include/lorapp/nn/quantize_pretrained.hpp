// quantize_pretrained: a model folder rewritten in 4 bits, as transformers and bitsandbytes write
// it. Streamed: no model is made; what is in memory is one shard of the output and one tensor.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/checkpoint_writer.hpp>
#include <lorapp/quant/config.hpp>

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>

namespace lorapp {

struct QuantizePretrainedOptions {
  /// compute_dtype becomes the file's bnb_4bit_compute_dtype; nothing: the weights' dtype.
  QuantConfig quant_config = {};
  /// What every weight is converted to first, as in LoadOptions.
  std::optional<torch::Dtype> dtype = std::nullopt;
  std::int64_t max_shard_bytes = kDefaultShardBytes;
};

/// What quantize_pretrained wrote.
struct QuantizedFolder {
  std::int64_t bytes = 0;              ///< of tensor data
  std::int64_t quantized_weights = 0;  ///< matrices in 4 bits
  std::int64_t dense_weights = 0;      ///< tensors that stayed dense
};

/// Quantizes the linear layers of the model folder `dir` and writes the folder `output_dir`, which
/// must be new or empty; it appears whole or not at all. The weights are those that from_pretrained
/// would hold with the same options. config.json keeps its keys and gains quantization_config; the
/// tokenizer's files and generation_config.json are copied byte for byte. A folder that is 4-bit
/// already is an Error.
LORAPP_API QuantizedFolder quantize_pretrained(const std::filesystem::path& dir,
                                               const std::filesystem::path& output_dir,
                                               const QuantizePretrainedOptions& options = {});

}  // namespace lorapp
