// The products of linear layers and their gradients, with a packed or a dense weight.
// Private to src/quant.
#pragma once

#include "kernels/product_args.hpp"

#include <lorapp/quant/ops.hpp>

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace lorapp::detail {

/// y, and with a low-rank term what its gradient needs: u = scale · input · Aᵀ, [rows, r] float32.
struct PackedForward {
  at::Tensor y;
  at::Tensor u;
};

/// The shape of x with another last dimension.
std::vector<std::int64_t> resized(const at::Tensor& x, std::int64_t size);

/// x · Wᵀ + bias (+ u · Bᵀ), in the dtype of x; W is packed, all on the CPU. Operands are rounded
/// to `compute_dtype` (float32, bfloat16 or float16) but for the low-rank term, which is float32;
/// sums are float32 and rounded to it once. At most kernels::kMaxVectorRows rows are multiplied
/// with weights that are not rounded to their dtype.
PackedForward packed_forward(const at::Tensor& x,
                             const QuantizedTensor& w,
                             const std::optional<at::Tensor>& bias,
                             at::ScalarType compute_dtype,
                             const LowRank* low_rank);

/// The low-rank term of a forward pass.
struct SavedLowRank {
  LowRank term;
  std::function<at::Tensor()> x;  // as it was; called once, for the gradient of A
  at::Tensor u;
};

struct Gradients {
  at::Tensor x, a, b;
};
struct WantedGradients {
  bool x, a, b;
};

/// What A reads of x [..., in], as rows: mask(x), or x itself.
at::Tensor low_rank_input(const LowRank& term, const at::Tensor& x);

/// The gradients that are wanted: dy · W for x, plus the low-rank term's; those of A and B, in
/// float32.
Gradients packed_backward(const at::Tensor& dy,
                          const QuantizedTensor& w,
                          at::ScalarType compute_dtype,
                          const SavedLowRank* low_rank,
                          WantedGradients wanted);

/// x · Wᵀ + bias in the dtype of x, all on the CPU; W [out, in] is of the dtype of x (float32,
/// bfloat16 or float16), or in 8 bits beside any floating x. Sums are float32 and rounded once.
at::Tensor dense_forward(const at::Tensor& x,
                         const kernels::DenseMatrix& w,
                         const std::optional<at::Tensor>& bias);

/// dy · W, in the dtype of dy.
at::Tensor dense_backward(const at::Tensor& dy, const kernels::DenseMatrix& w);

/// The gradient of a bias: dy summed over its rows, in at least float32, in `dtype`.
at::Tensor bias_gradient(const at::Tensor& dy, at::ScalarType dtype);

/// leftᵀ · right, summed over their rows: left [T, m], right [T, n] → [m, n] float32.
at::Tensor outer_product(const at::Tensor& left, const at::Tensor& right);

}  // namespace lorapp::detail
