// Products with a packed 4-bit weight, split over torch's threads.
// Private to src/quant.
#pragma once

#include "quant/packed_codes.hpp"

#include <ATen/core/Tensor.h>

#include <optional>

namespace lorapp::detail {

/// x · Wᵀ + bias, or x · W if `transposed`, in the dtype of x; W is packed, x [rows, …] and bias on
/// the CPU. Operands are rounded to `compute_dtype` (float32, bfloat16 or float16), sums are f32
/// and rounded to it once. At most kernels::kMaxVectorRows rows of x · Wᵀ are multiplied with
/// weights that are not rounded to their dtype.
at::Tensor packed_product(const at::Tensor& x,
                          const QuantizedTensor& w,
                          bool transposed,
                          const std::optional<at::Tensor>& bias,
                          at::ScalarType compute_dtype);

}  // namespace lorapp::detail
