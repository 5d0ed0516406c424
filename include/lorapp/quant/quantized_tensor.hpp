// QuantizedTensor: a weight in 4 bits with its scales, as bitsandbytes stores it.
// A value: copies share the same immutable tensors, so a copy costs nothing and saves no memory
// twice.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/quant/double_quant.hpp>

#include <torch/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace lorapp {

namespace detail {
class PackedCodes;
}

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
  /// `name`. The tables of a file are kept and used as they are. Parts on a GPU are waited for;
  /// whether their scales are finite is not looked at.
  static QuantizedTensor from_parts(Parts parts, std::string_view name = "quantized tensor");

  bool defined() const noexcept { return parts_.code.defined(); }

  /// The same weight in the order in which products on the CPU read it (docs/performance.md), 64
  /// bytes of 16 rows and 8 columns at a time; the order of files is not kept beside it. Itself
  /// where it is packed already, and where it cannot be: it is not a matrix on the CPU, or the
  /// blocks do not divide its rows into multiples of 32 columns.
  QuantizedTensor packed() const;
  bool is_packed() const noexcept { return packed_ != nullptr; }

  /// What a file holds, in the order of files: of a packed weight, copies made by the call.
  Parts parts() const;
  torch::Tensor codes() const;   ///< [ceil(n / 2)]
  torch::Tensor absmax() const;  ///< [blocks]
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
  torch::Device device() const { return parts_.code.device(); }

  /// Bytes of codes, scales and tables.
  std::int64_t nbytes() const;

  /// The same weight on another device; codes and scales are moved, never recast.
  QuantizedTensor to(torch::Device device) const;

  /// For the products of this library: the packed form, null where is_packed() is false, and the
  /// parts that a packed weight has.
  const detail::PackedCodes* packed_codes() const noexcept { return packed_.get(); }
  const Parts& tables() const noexcept { return parts_; }
  /// code(), on the host.
  const std::array<float, 16>& code_values() const noexcept { return code_values_; }

 private:
  Parts parts_;  // of a packed weight, without codes and absmax
  std::array<float, 16> code_values_{};
  std::shared_ptr<const detail::PackedCodes> packed_;
};

}  // namespace lorapp
