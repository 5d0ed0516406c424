// Where the tensors of a model are in a checkpoint, and the weights made of them.
// Shared by what loads a model and by what rewrites its files without making one.
#pragma once

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/nn/load.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <torch/types.h>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

inline constexpr std::string_view kHead = "lm_head";

/// Where a tensor of the model is in the files.
struct WeightSource {
  TensorSpec spec;
  std::string name;      ///< in the files: spec.name, or without "model."
  bool is_4bit = false;  ///< as bitsandbytes stores it
};

/// Whether a safetensors type is one that weights may have: F32, BF16, F16, F64.
bool is_float(const std::string& dtype);

/// Whether a skip_modules pattern means a module: whole names anywhere in its path, or the end of
/// its path, as for transformers' llm_int8_skip_modules (regular expressions aside).
bool matches_skip_module(const std::string& path, const std::string& pattern);

/// A model folder opened: what it says of itself, and where its weights are. No weight is read.
struct ModelFolder {
  std::filesystem::path dir;
  ModelConfig config;
  Checkpoint checkpoint;
  std::vector<WeightSource> sources;

  /// Throws Error where the folder or the options are wrong; one Error lists all that is wrong with
  /// the weights.
  static ModelFolder open(const std::filesystem::path& dir, const LoadOptions& options);
};

/// Reads weights as LoadOptions want them.
class WeightReader {
 public:
  /// `folder` must outlive it. `maps`: 4-bit weights on the CPU stay in the file, for files that
  /// nothing cuts short.
  WeightReader(const ModelFolder& folder, const LoadOptions& options, bool maps = false);

  /// Whether a dense weight becomes 4-bit.
  bool quantizes(const WeightSource& source) const;
  /// The weight in 4 bits: as it is in the files, or quantized from its dense form.
  QuantizedTensor quantized(const WeightSource& source) const;
  /// The dense weight, a copy. Error where a number in it is not finite.
  torch::Tensor dense(const WeightSource& source) const;
  /// What a weight of that dtype in the files is converted to.
  torch::Dtype dtype_for(torch::Dtype stored) const;
  /// What products with 4-bit weights are computed in.
  const std::optional<torch::Dtype>& compute_dtype() const noexcept { return compute_dtype_; }

 private:
  const Checkpoint& checkpoint_;
  std::optional<torch::Dtype> dtype_;
  torch::Device device_;
  std::optional<QuantConfig> quant_;
  std::optional<torch::Dtype> compute_dtype_;
  bool maps_;
};

}  // namespace lorapp::detail
