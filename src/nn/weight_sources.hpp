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

/// Where the files hold both the embedding and a head that differs from it, the two are not tied,
/// whatever config.json says: as in transformers 5.
void untie_own_head(ModelConfig& config, const Checkpoint& checkpoint);

/// The source of every tensor of the model; one Error lists every missing, unexpected and
/// mis-shaped tensor of `dir`.
std::vector<WeightSource> match_weights(const Checkpoint& checkpoint,
                                        const ModelConfig& config,
                                        const std::filesystem::path& dir);

/// Whether a skip_modules pattern means a module: whole names anywhere in its path, or the end of
/// its path, as for transformers' llm_int8_skip_modules (regular expressions aside).
bool matches_skip_module(const std::string& path, const std::string& pattern);

/// Throws one Error that lists the skip_modules that match none of a model's modules.
void check_skip_modules(const ModelConfig& config, const QuantConfig& quant);

/// Throws Error unless options.dtype is one that weights may have.
void check_load_options(const LoadOptions& options);

/// Reads weights as LoadOptions want them.
class WeightReader {
 public:
  WeightReader(const Checkpoint& checkpoint, const ModelConfig& config, const LoadOptions& options);

  /// Whether a dense weight becomes 4-bit.
  bool quantizes(const WeightSource& source) const;
  /// The weight in 4 bits: as it is in the files, or quantized from its dense form.
  QuantizedTensor quantized(const WeightSource& source) const;
  /// The dense weight, a copy.
  torch::Tensor dense(const WeightSource& source) const;
  /// What products with 4-bit weights are computed in.
  const std::optional<torch::Dtype>& compute_dtype() const noexcept { return compute_dtype_; }

 private:
  torch::Dtype dtype_of(const torch::Tensor& view) const;

  const Checkpoint& checkpoint_;
  std::optional<torch::Dtype> dtype_;
  torch::Device device_;
  std::optional<QuantConfig> quant_;
  std::optional<torch::Dtype> compute_dtype_;
};

}  // namespace lorapp::detail
