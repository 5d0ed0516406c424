// The operations on 4-bit weights that lie on a GPU. Arguments are checked by ops.cpp and
// nf4_linear_fn.cpp. Private to src/quant.
#pragma once

#include "quant/products.hpp"

#include <lorapp/quant/nf4.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lorapp::detail {

/// What gpu_quantize found: the index of the first weight that is not finite, or -1.
struct GpuQuantized {
  at::Tensor codes;   ///< [ceil(n / 2)]
  at::Tensor absmax;  ///< [blocks] float32
  std::int64_t first_not_finite;
};

/// `flat` is contiguous. Waits for the GPU, which alone knows of weights that are not finite.
GpuQuantized gpu_quantize(const at::Tensor& flat, const Codebook4& book, std::int64_t blocksize);

/// Replaces parts.absmax, float32, by 8-bit codes. Waits for the offset. The offset is the mean
/// summed in double in an order of the GPU's: where the CPU's sum is rounded to float32 otherwise,
/// which is rare, it is the float beside.
void gpu_nest_absmax(QuantizedTensor::Parts& parts);

/// All elements, rounded to w.dtype(), then converted to `out`'s dtype (float32, bfloat16 or
/// float16); `out` has room for them.
void gpu_dequantize(const QuantizedTensor& w, const at::Tensor& out);

/// True where gpu_forward and gpu_backward multiply with w: on a GPU, in bfloat16, with sizes that
/// are multiples of 8 (what tensor cores read at a time).
bool gpu_multiplies(const QuantizedTensor& w, at::ScalarType compute_dtype);

/// packed_forward in bfloat16, sums in float32: the base product, and the low-rank term's of more
/// than a few rows, with operands rounded to bfloat16 (of few rows A, B and u are float32). Few
/// rows are multiplied with the codes as they are (choose_product), more with the weights in a
/// matrix that lives as long as the call; where `matrix` is given and undefined it is left there,
/// and used where it is defined. Nothing waits.
PackedForward gpu_forward(const at::Tensor& x,
                          const QuantizedTensor& w,
                          const std::optional<at::Tensor>& bias,
                          const LowRank* low_rank,
                          at::Tensor* matrix = nullptr);

/// packed_backward, with the rounding of gpu_forward. Nothing waits.
Gradients gpu_backward(const at::Tensor& dy,
                       const QuantizedTensor& w,
                       const SavedLowRank* low_rank,
                       WantedGradients wanted,
                       const at::Tensor& matrix = {});

}  // namespace lorapp::detail
