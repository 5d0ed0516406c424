// QuantConfig: how a model's linear weights are stored in 4 bits.
// The fields are those of transformers' BitsAndBytesConfig, without the bnb_4bit_ prefix.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// The 4-bit code tables: NF4 (nf4.hpp) and FP4 (fp4.hpp).
enum class QuantType { nf4, fp4 };

/// "nf4" or "fp4", as checkpoint files spell it.
LORAPP_API std::string_view quant_type_name(QuantType type);
/// The inverse; throws Error on any other name.
LORAPP_API QuantType parse_quant_type(std::string_view name);
LORAPP_API std::ostream& operator<<(std::ostream& out, QuantType type);

/// The defaults are the tutorial's: NF4 in blocks of 64, single quantization.
struct QuantConfig {
  QuantType quant_type = QuantType::nf4;
  /// What products are computed in; none = chosen by resolve_compute_dtype.
  std::optional<torch::Dtype> compute_dtype = std::nullopt;
  /// Store the absmax of the blocks in 8 bits (double_quant.hpp): 4.127 instead of 4.5 bits a
  /// weight.
  bool use_double_quant = false;
  /// Weights that share one absmax: a power of two from 32 to 4096.
  std::int64_t blocksize = 64;
  /// Modules that stay dense: names anywhere in a module's dotted path ("mlp", "model.layers.2"),
  /// or any text that the path ends with ("v_proj"). lm_head is never in 4 bits.
  std::vector<std::string> skip_modules = {"lm_head"};

  bool operator==(const QuantConfig&) const = default;
};

/// `requested`, or where there is none: bfloat16 where the device multiplies it natively (a CPU
/// with AVX512-BF16 or AMX-BF16, a GPU), else float32.
LORAPP_API torch::Dtype resolve_compute_dtype(const std::optional<torch::Dtype>& requested,
                                              torch::Device device);

}  // namespace lorapp
