// The operations on 4-bit weights that lie on a GPU. Arguments are checked by ops.cpp and
// nf4_linear_fn.cpp. Private to src/quant.
#pragma once

#include "quant/products.hpp"

#include <lorapp/quant/nf4.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace lorapp::detail {

struct GpuQuantized {
  at::Tensor codes;               ///< [ceil(n / 2)]
  at::Tensor absmax;              ///< [blocks] float32
  std::int64_t first_not_finite;  ///< the index of that weight, or -1
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

/// One of the layers that gpu_forward multiplies with the same x; its tensors outlive the call.
struct GpuLayer {
  const QuantizedTensor& w;
  const at::Tensor* bias = nullptr;   // or none
  const LowRank* low_rank = nullptr;  // or none
  /// Added to y, of its shape and in the dtype of x; or none. Where there are several layers, none.
  const at::Tensor* added = nullptr;
};

struct GpuForward {
  /// Of each layer, in the dtype of x; in bfloat16 several are views of one tensor.
  std::vector<at::Tensor> y;
  /// u = scale · input · Aᵀ of all layers, [rows, R] bfloat16, for the gradients of B; undefined
  /// where none is asked for.
  at::Tensor u;
};

/// x · Wᵀ + bias (+ u · Bᵀ) (+ added) in bfloat16, sums in float32: the base product, and the
/// low-rank term's of more than a few rows, with operands rounded to bfloat16 (of few rows A, B and
/// u are float32). Few rows are multiplied with the codes as they are (choose_product), more with
/// the weights of all layers in one matrix that lives as long as the call; where `matrix` is given
/// it is left there. Nothing waits.
GpuForward gpu_forward(const at::Tensor& x,
                       const std::vector<GpuLayer>& layers,
                       at::Tensor* matrix = nullptr);

/// What a backward pass is given: the gradients of all y, undefined for zeros, and what the forward
/// pass had. Gradients that are neighbouring columns of one tensor are read where they are.
struct GpuBackwardInput {
  const std::vector<at::Tensor>& dy;
  const std::vector<GpuLayer>& layers;   // without biases and what was added
  const std::function<at::Tensor()>& x;  // as it was; called once at most, for the gradients of A
  at::Tensor u;
  at::Tensor matrix;  // or undefined
};
struct GpuWanted {
  bool x = false;
  std::vector<bool> a, b;  // of each layer
};
struct GpuGradients {
  at::Tensor x;
  std::vector<at::Tensor> a, b;  // float32
};
GpuGradients gpu_backward(const GpuBackwardInput& input, const GpuWanted& wanted);

/// The layers, as one node of the graph. Operands are checked.
std::vector<at::Tensor> gpu_linear(const at::Tensor& x, const std::vector<GpuLayer>& layers);

}  // namespace lorapp::detail
