// Products of many tokens on a GPU, by cuBLASLt: dense matrices, and 4-bit weights that are
// dequantized into a workspace, with a low-rank term as further rows and columns of the same
// product. Host code; no CUDA header is needed to include it.
#pragma once

#include "kernels/cuda_launch.hpp"

#include <cstddef>
#include <memory>

namespace lorapp::kernels::cuda {

/// What launchers return, in words: of a cudaError_t, or of a cuBLASLt status (DenseProducts).
const char* error_text(int error);

/// y = alpha · op(x) · op(w) + beta · y + bias, matrices row by row, sums in f32.
struct DenseProductArgs {
  const void* x;  // [rows, depth], or [depth, rows] with x_transposed
  std::int64_t x_stride;
  bool x_transposed = false;
  const void* w;  // [depth, columns], or [columns, depth] with w_transposed
  std::int64_t w_stride;
  bool w_transposed = false;
  std::int64_t rows, depth, columns;  // depth at least 1
  Float type;                         // of x and w
  float alpha = 1.0f;
  float beta = 0.0f;
  const void* bias = nullptr;  // [columns], at a multiple of 16 bytes; then y_type is type
  void* y;                     // [rows, columns]
  std::int64_t y_stride;
  Float y_type;
};

/// cuBLASLt with the algorithms that it chose for shapes seen before: for one device, and for one
/// thread and stream at a time, whose products share `space`.
class DenseProducts {
 public:
  /// `space`: device memory of `bytes` that products may write to; it outlives this object.
  DenseProducts(void* space, std::size_t bytes);
  ~DenseProducts();
  DenseProducts(const DenseProducts&) = delete;
  DenseProducts& operator=(const DenseProducts&) = delete;

  /// Returns 0, a cudaError_t, or kStatus plus a cublasStatus_t.
  int multiply(const DenseProductArgs& args, void* stream);
  static constexpr int kStatus = 100000;

  /// Shapes whose algorithm is known.
  std::size_t shapes() const;

 private:
  struct Cache;
  std::unique_ptr<Cache> cache_;
};

/// The columns that a low-rank term of a rank has in a product: tensor cores read whole steps.
LORAPP_HD std::int64_t padded_rank(std::int64_t rank) { return ceil_div(rank, 64) * 64; }

/// A 4-bit weight, its low-rank term (Hu et al. 2021), and where they become matrices of bf16:
/// [W | B; A], [rows + R, columns + R] with R = padded_rank(rank).
struct LinearWeight {
  DequantizeRowsArgs w;  // its out, out_stride and out_type are not read
  const float* a;        // [rank, columns], or null: no low-rank term
  const float* b;        // [rows, rank]
  std::int64_t rank;
  float scale;
  std::uint16_t* matrix;  // [(rows + R) · (columns + R)]

  std::int64_t padding() const { return a != nullptr ? padded_rank(rank) : 0; }
  std::int64_t stride() const { return w.columns + padding(); }
  std::int64_t matrix_size() const { return (w.rows + padding()) * stride(); }
};

/// Fills weight.matrix: one dequantization, which a forward pass and a gradient can share.
int fill_matrix(const LinearWeight& weight, void* stream);

/// y = x · Wᵀ + bias + (scale · x · Aᵀ) · Bᵀ in bf16, of a filled matrix.
struct LinearForwardArgs {
  const std::uint16_t* x;  // [tokens, columns]
  std::int64_t tokens;
  std::int64_t x_stride;
  const std::uint16_t* bias;  // [rows], or null
  /// [tokens, columns + R]: x | scale · x · Aᵀ, for the gradient of B. May be where x is, with that
  /// distance of rows; not read without a low-rank term.
  std::uint16_t* x_and_u;
  std::uint16_t* y;  // [tokens, rows]
  std::int64_t y_stride;
};
int linear_forward(DenseProducts& products,
                   const LinearWeight& weight,
                   const LinearForwardArgs& args,
                   void* stream);

/// dx = dy · W + (scale · dy · B) · A, and the gradients of A and B, of a filled matrix.
struct LinearBackwardArgs {
  const std::uint16_t* dy;  // [tokens, rows]
  std::int64_t tokens;
  std::int64_t dy_stride;
  /// [tokens, rows + R]: dy | scale · dy · B. May be where dy is, with that distance of rows; not
  /// read without a low-rank term.
  std::uint16_t* dy_and_v;
  const std::uint16_t* x_and_u;  // of the forward pass; needed for da and db
  std::uint16_t* dx;             // [tokens, columns], or null
  std::int64_t dx_stride;
  float* da;  // [R, columns], its first rows those of A, or null
  float* db;  // [rows, R], its first columns those of B, or null
};
int linear_backward(DenseProducts& products,
                    const LinearWeight& weight,
                    const LinearBackwardArgs& args,
                    void* stream);

/// The head and the loss over rows that have a label: logits = hidden · Wᵀ in bf16, a chunk of rows
/// at a time, each chunk's gradient in the logits' place; CrossEntropyArgs says what of a row's
/// loss is given.
struct HeadLossArgs {
  const std::uint16_t* hidden;  // [rows, size]
  std::int64_t rows;
  std::int64_t size;
  const std::uint16_t* weight;  // [vocabulary, size]
  std::int64_t vocabulary;
  const std::int64_t* labels;  // [rows]
  float grad_scale;
  std::uint16_t* dhidden;  // [rows, size], or null: no gradient
  float* largest;          // [rows] each
  float* sum;
  float* picked;
  std::uint16_t* logits;  // [head_chunk(vocabulary), vocabulary]
};

/// Rows whose logits exist at a time: 128 MiB of them, in whole tiles of 128 rows where they fit.
LORAPP_HD std::int64_t head_chunk(std::int64_t vocabulary) {
  const std::int64_t rows = (std::int64_t{128} << 20) / (2 * vocabulary);
  return rows >= 128 ? rows / 128 * 128 : rows > 0 ? rows : 1;
}

/// `chunk` rows at a time (0: head_chunk).
int head_loss(DenseProducts& products,
              const HeadLossArgs& args,
              void* stream,
              std::int64_t chunk = 0);

}  // namespace lorapp::kernels::cuda
