// The operations on 4-bit weights: quantize, dequantize, multiply.
// The only door to the kernels: every argument is checked here, and work is split over torch's
// threads.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <torch/types.h>

#include <optional>

namespace lorapp {

/// Quantizes a weight of any shape, row-major, in blocks of config.blocksize (Dettmers et al. 2023,
/// "QLoRA", section 3). `w` is float32, bfloat16 or float16 with at least one element, and may be
/// non-contiguous. The bytes do not depend on the device, the instruction set or the thread count.
/// Throws Error on an infinite or NaN weight, naming its position.
LORAPP_API QuantizedTensor quantize_4bit(const torch::Tensor& w, const QuantConfig& config = {});

/// The dense weight. Each value is rounded to w.dtype(), as bitsandbytes does, then converted to
/// `out` (default: w.dtype()), any floating dtype.
LORAPP_API torch::Tensor dequantize_4bit(const QuantizedTensor& w,
                                         std::optional<torch::Dtype> out = std::nullopt);

/// y = x · Wᵀ + bias. x [..., in_features], w [out_features, in_features], bias [out_features];
/// the product is computed in `compute_dtype` (default: resolve_compute_dtype), y is in x.dtype().
///
/// Autograd: the gradient of x is dy · W with W dequantized again, so that the graph keeps nothing
/// but the packed codes; W has no gradient; bias has one if it requires it. Throws Error when asked
/// for second derivatives.
LORAPP_API torch::Tensor linear_4bit(const torch::Tensor& x,
                                     const QuantizedTensor& w,
                                     const std::optional<torch::Tensor>& bias = std::nullopt,
                                     std::optional<torch::Dtype> compute_dtype = std::nullopt);

}  // namespace lorapp
