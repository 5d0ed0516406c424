// The operations on 4-bit weights: quantize, dequantize, multiply; the product with dense ones.
// The only door to the kernels: every argument is checked here, and work is split over torch's
// threads.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <torch/types.h>

#include <functional>
#include <optional>
#include <vector>

namespace lorapp {

/// Quantizes a weight of any shape, row-major, in blocks of config.blocksize (Dettmers et al. 2023,
/// "QLoRA", section 3). `w` is float32, bfloat16 or float16 with at least one element, and may be
/// non-contiguous. The bytes do not depend on the instruction set or the thread count, and on a GPU
/// are the same but for the offset of nested scales, which may be the next float: it is summed in
/// another order. Throws Error on an infinite or NaN weight, naming its position; a GPU is waited
/// for to know.
LORAPP_API QuantizedTensor quantize_4bit(const torch::Tensor& w, const QuantConfig& config = {});

/// The dense weight. Each value is rounded to w.dtype(), as bitsandbytes does, then converted to
/// `out` (default: w.dtype()), any floating dtype.
LORAPP_API torch::Tensor dequantize_4bit(const QuantizedTensor& w,
                                         std::optional<torch::Dtype> out = std::nullopt);

/// How a tensor is made again from others that a graph keeps anyway: `make(inputs)` gives the same
/// bits every time.
struct Recipe {
  std::vector<torch::Tensor> inputs;
  std::function<torch::Tensor(const std::vector<torch::Tensor>&)> make;
};

/// An addition to a product with [out, in] weights: scale · (mask(x) · Aᵀ) · Bᵀ (Hu et al. 2021,
/// "LoRA").
struct LowRank {
  torch::Tensor a;  ///< A [r, in], float32
  torch::Tensor b;  ///< B [out, r], float32
  double scale = 1;
  /// Multiplies each element of a tensor of the shape of x by a factor of its own, the same every
  /// time: dropout, whose gradient it is as well. Empty: A reads x.
  std::function<torch::Tensor(const torch::Tensor&)> mask = {};
  /// How the backward pass makes x again, which the gradient of A reads; none: the graph keeps x.
  std::optional<Recipe> recipe = {};
};

/// y = x · Wᵀ + bias (+ the low-rank term). x [..., in_features], w [out_features, in_features],
/// bias [out_features]; the product is computed in `compute_dtype` (default: resolve_compute_dtype)
/// with sums in float32, the low-rank term in float32, and y is rounded once to compute_dtype and
/// is in x.dtype().
///
/// No dense weight exists at any time where w can be packed (QuantizedTensor::packed): w that is
/// not is packed for the call. Up to four rows (a token that is generated) are multiplied with
/// code · absmax as it is in float32, more rows with the weights that dequantize_4bit gives.
///
/// On a GPU, in bfloat16 and with sizes that are multiples of 8, few rows (at most 64, fewer for a
/// small weight) are multiplied with the codes as they are, rounded to bfloat16 before their scale;
/// for more, w becomes dense for the call and operands of the low-rank term are rounded to bfloat16
/// as well; the term is part of the same product, or added to y, which is rounded twice then.
/// Otherwise w becomes dense for LibTorch's product. Work goes to LibTorch's current stream,
/// nothing waits for it, and after one call of a shape a CUDA graph can capture it.
///
/// Autograd: the gradient of x is dy · W, decoded again, so that the graph keeps nothing but the
/// codes; W has no gradient; bias, A and B have one if they require it. For those of A and B it
/// keeps x, or what x is made of, and x · Aᵀ, but no masked x: the backward pass masks again.
/// Throws Error when asked for second derivatives.
LORAPP_API torch::Tensor linear_4bit(const torch::Tensor& x,
                                     const QuantizedTensor& w,
                                     const std::optional<torch::Tensor>& bias = std::nullopt,
                                     std::optional<torch::Dtype> compute_dtype = std::nullopt,
                                     const std::optional<LowRank>& low_rank = std::nullopt);

/// One of several layers that read the same x, as the arguments of linear_4bit; w outlives it.
struct Projection {
  const QuantizedTensor& w;
  std::optional<torch::Tensor> bias = std::nullopt;
  std::optional<LowRank> low_rank = std::nullopt;
  std::optional<torch::Tensor> added = std::nullopt;  ///< to y: a residual
};

/// linear_4bit of each layer, in their order, plus what is added to it. On a GPU all of them are
/// one product; of x in bfloat16, what is added to a layer that is alone is part of it, before its
/// sum is rounded, and the results of more than few rows are columns of one tensor, each contiguous
/// row by row, in steps of all. The recipe of x of one low-rank term counts for all.
LORAPP_API std::vector<torch::Tensor> stacked_linear_4bit(
    const torch::Tensor& x,
    const std::vector<Projection>& layers,
    std::optional<torch::Dtype> compute_dtype = std::nullopt);

/// y = x · Wᵀ + bias with a dense weight, as at::linear: on the CPU, for tensors of one type of
/// float32, bfloat16 and float16, by the kernels of linear_4bit, with sums in float32 that are
/// rounded once; by at::linear otherwise. Throws Error when the kernels' gradient is asked to be
/// differentiable.
LORAPP_API torch::Tensor linear_dense(const torch::Tensor& x,
                                      const torch::Tensor& weight,
                                      const std::optional<torch::Tensor>& bias = std::nullopt);

}  // namespace lorapp
