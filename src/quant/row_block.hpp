// RowBlock: some rows of a matrix, packed once for any number of products.
// Private to src/quant.
#pragma once

#include "kernels/product_args.hpp"
#include "quant/scratch_buffer.hpp"

#include <ATen/core/Tensor.h>

#include <memory>

namespace lorapp::detail {

/// Rows that are packed at a time: with 192 words of each, less than half of a 1 MiB L2 cache.
inline constexpr std::int64_t kRowBlock = 480;

/// What a product reads as W: one of the two.
struct ProductWeight {
  const kernels::PackedWeight* packed = nullptr;
  const kernels::DenseMatrix* dense = nullptr;
};

/// A matrix [rows, columns] of float32, bfloat16 or float16 on the CPU whose rows are contiguous;
/// `tensor` must outlive it.
kernels::DenseMatrix dense_matrix(const at::Tensor& tensor);

/// `x` as such a matrix: its last dimension against all others, float64 as float32.
at::Tensor matrix_rows(const at::Tensor& x);

/// y = x · Wᵀ + bias for at most kernels::kMaxVectorRows rows of x, which are not packed: x [rows,
/// columns of W] rounded to `compute_dtype`, y [rows, rows of W] float32.
at::Tensor vector_product(const at::Tensor& x,
                          const ProductWeight& w,
                          const float* bias,
                          at::ScalarType compute_dtype);

class RowBlock {
 public:
  /// x [rows, depth] as matrix_rows gives it; products will sum `padded_depth` elements, and round
  /// their operands to `round`. The work is split over torch's threads.
  RowBlock(const at::Tensor& x, std::int64_t padded_depth, kernels::Float round);

  /// This block, where it can stand for one of Float::f32 (its elements are in f32, and rounding
  /// them changed nothing), else a new one of `x`.
  RowBlock as_f32(const at::Tensor& x) const;

  /// A low-rank term of a product: u [rows, r] times b2 [r, columns], b2 in float32.
  struct LowRankTerm {
    const RowBlock& u;  // of Float::f32
    const at::Tensor& b2;
  };

  /// y = x · Wᵀ, or x · W if `transposed`, plus bias [columns] and the low-rank term; y [rows,
  /// columns] of any of the three types. Its values do not depend on the number of threads.
  void multiply(const ProductWeight& w,
                bool transposed,
                const at::Tensor& y,
                const float* bias = nullptr,
                const LowRankTerm* low_rank = nullptr) const;

 private:
  std::int64_t rows_;
  std::int64_t depth_;
  kernels::Float round_;
  std::shared_ptr<const ScratchBuffer> packed_;
};

}  // namespace lorapp::detail
