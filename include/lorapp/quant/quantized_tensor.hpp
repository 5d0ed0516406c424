// QuantizedTensor: a weight in 4 bits with its scales, as bitsandbytes stores it.
// A value: copies share the same immutable tensors, so a copy costs nothing and saves no memory
// twice.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/quant/double_quant.hpp>

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace lorapp {

/// The weight is taken as one flat row-major array of n elements, cut into blocks that may straddle
/// rows; element i of block b is code()[code of i] · absmax[b] in f32, rounded once to dtype().
class LORAPP_API QuantizedTensor {
 public:
  /// What a checkpoint holds of one weight; nested_* only where the absmax is itself quantized.
  struct Parts {
    torch::Tensor codes;   ///< U8, ceil(n / 2) bytes in any shape; first element in the high nibble
    torch::Tensor absmax;  ///< [blocks], F32, or U8 where nested
    torch::Tensor code;    ///< F32 [16]: code → value
    torch::Tensor nested_absmax;  ///< F32 [ceil(blocks / nested_blocksize)]
    torch::Tensor nested_code;    ///< F32 [256]
    std::optional<float> nested_offset;
    std::int64_t nested_blocksize = kNestedBlocksize;
    std::int64_t blocksize = 64;
    QuantType quant_type = QuantType::nf4;
    torch::Dtype dtype = torch::kFloat32;  ///< of the weight before quantization: F32, BF16 or F16
    std::vector<std::int64_t> shape;
  };

  /// Empty: defined() is false, and every operation on it is an Error.
  QuantizedTensor() = default;

  /// Checks all parts against each other and throws one Error that lists every problem and names
  /// `name`. The tables of a file are kept and used as they are.
  static QuantizedTensor from_parts(Parts parts, std::string_view name = "quantized tensor");

  bool defined() const noexcept { return parts_.codes.defined(); }
  const Parts& parts() const noexcept { return parts_; }

  const torch::Tensor& codes() const noexcept { return parts_.codes; }    // [ceil(n / 2)]
  const torch::Tensor& absmax() const noexcept { return parts_.absmax; }  // [blocks]
  const torch::Tensor& code() const noexcept { return parts_.code; }
  bool is_nested() const noexcept { return parts_.nested_absmax.defined(); }
  const torch::Tensor& nested_absmax() const noexcept { return parts_.nested_absmax; }
  const torch::Tensor& nested_code() const noexcept { return parts_.nested_code; }
  float nested_offset() const noexcept { return parts_.nested_offset.value_or(0.0f); }
  std::int64_t nested_blocksize() const noexcept { return parts_.nested_blocksize; }

  std::int64_t blocksize() const noexcept { return parts_.blocksize; }
  QuantType quant_type() const noexcept { return parts_.quant_type; }
  torch::Dtype dtype() const noexcept { return parts_.dtype; }
  const std::vector<std::int64_t>& shape() const noexcept { return parts_.shape; }
  /// Error where there is no such dimension.
  std::int64_t size(std::size_t dim) const;
  std::int64_t dim() const noexcept { return static_cast<std::int64_t>(parts_.shape.size()); }
  std::int64_t numel() const noexcept;
  torch::Device device() const { return parts_.codes.device(); }

  /// Bytes of codes, scales and tables.
  std::int64_t nbytes() const;

  /// The same weight on another device; codes and scales are moved, never recast.
  QuantizedTensor to(torch::Device device) const;

 private:
  Parts parts_;
};

}  // namespace lorapp
