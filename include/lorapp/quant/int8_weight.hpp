// Int8Weight: a matrix in 8 bits with one scale a row, for a head that is read at half the bytes of
// bfloat16. The format is bitsandbytes' for 8-bit weights (LLM.int8() without its outliers).
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/int8.hpp>

#include <torch/types.h>

#include <cstdint>
#include <optional>
#include <string_view>

namespace lorapp {

/// W [out, in]: element (n, k) is codes[n, k] · (absmax[n] / 127) in float32 (int8_step). A value:
/// copies share the tensors, which nothing changes.
struct Int8Weight {
  torch::Tensor codes;                   ///< [out, in] int8, rows contiguous
  torch::Tensor absmax;                  ///< [out] float32, finite
  torch::Dtype dtype = torch::kFloat32;  ///< of the weight before quantization

  bool defined() const noexcept { return codes.defined(); }
  torch::IntArrayRef sizes() const { return codes.sizes(); }
  std::int64_t numel() const { return codes.numel(); }
  /// Bytes of codes and scales.
  std::int64_t nbytes() const {
    return static_cast<std::int64_t>(codes.nbytes() + absmax.nbytes());
  }
  /// The same weight on another device.
  Int8Weight to(torch::Device device) const { return {codes.to(device), absmax.to(device), dtype}; }
};

/// Row-wise absmax quantization (Dettmers et al. 2022, "LLM.int8()", arXiv:2208.07339, section 2.1;
/// bitsandbytes' int8_vectorwise_quant): absmax[n] = max |w[n]|, codes = w · int8_scale in
/// float32, rounded to the nearest, ties to even; a row of zeros has codes 0. A code stands for its
/// weight within absmax / 254 and rounding. `w` [out, in] is float32, bfloat16 or float16 on the
/// CPU with at least one element. The bytes do not depend on the instruction set or the thread
/// count. Throws Error on an infinite or NaN weight, with its place in `name`.
LORAPP_API Int8Weight quantize_int8(const torch::Tensor& w, std::string_view name = "weight");

/// The dense weight: each value rounded from float32 to `out` (default: w.dtype).
inline torch::Tensor dequantize_int8(const Int8Weight& w,
                                     std::optional<torch::Dtype> out = std::nullopt) {
  const torch::Tensor step = w.absmax.mul(1.0f / kInt8Max).unsqueeze(1);
  return w.codes.to(torch::kFloat32).mul_(step).to(out.value_or(w.dtype));
}

/// y = x · Wᵀ + bias in the dtype of x [..., in], a floating one; bias [out]. Sums are float32 and
/// rounded once, and no dense weight exists on the CPU; on a GPU LibTorch multiplies with 64 MiB of
/// float32 made at a time, so a head in 8 bits is smaller there, not faster. Up to four rows of x are multiplied with
/// the codes as they are and each sum with its row's scale, more rows with the weights rounded to
/// the dtype of x, as dequantize_int8 gives them.
///
/// Autograd: the gradient of x is dy · W, which keeps nothing but the codes; W has none, bias has
/// one if it requires it. Throws Error when asked for second derivatives.
LORAPP_API torch::Tensor linear_int8(const torch::Tensor& x,
                                     const Int8Weight& w,
                                     const std::optional<torch::Tensor>& bias = std::nullopt);

}  // namespace lorapp
