// Products of many tokens on a GPU, by cuBLASLt: dense matrices, and 4-bit weights that are
// dequantized into a workspace, with a low-rank term as further rows and columns of the same
// product. Host code; no CUDA header is needed to include it.
#pragma once

#include "kernels/cuda_launch.hpp"

#include <cstddef>
#include <memory>

namespace lorapp::kernels::cuda {

/// What launchers return, in words: of a cudaError_t, or of a cuBLASLt status (multiply).
const char* error_text(int error);

/// y = alpha · op(x) · op(w) + beta · c + bias, matrices row by row, sums in f32.
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
  const void* c = nullptr;  // [rows, columns] like y; null: y itself. Not read where beta is 0
  std::int64_t c_stride = 0;
  const void* bias = nullptr;  // [columns], at a multiple of 16 bytes; then y_type is type
  void* y;                     // [rows, columns]
  std::int64_t y_stride;
  Float y_type;
};

/// The algorithms that cuBLASLt chose for shapes seen before, on one device. Threads may share it.
class ProductAlgorithms {
 public:
  ProductAlgorithms();
  ~ProductAlgorithms();
  ProductAlgorithms(const ProductAlgorithms&) = delete;
  ProductAlgorithms& operator=(const ProductAlgorithms&) = delete;

  /// Shapes whose algorithm is known.
  std::size_t shapes() const;

 private:
  friend int multiply(const struct DenseProducts&, const DenseProductArgs&, void* stream);
  struct State;
  std::unique_ptr<State> state_;
};
std::shared_ptr<ProductAlgorithms> make_product_algorithms();

/// What products on one stream share: `space` is device memory of `bytes` that they may write to.
struct DenseProducts {
  std::shared_ptr<ProductAlgorithms> algorithms;
  void* space;
  std::size_t bytes;
};

/// Space with which no product's algorithm is a poor one for want of it (cuBLAS asks for as much).
inline constexpr std::size_t kProductSpaceBytes = std::size_t{32} << 20;

/// Returns 0, a cudaError_t, or kProductStatus plus a cublasStatus_t.
int multiply(const DenseProducts& products, const DenseProductArgs& args, void* stream);
inline constexpr int kProductStatus = 100000;

/// The columns that a low-rank term of a rank has in a product: tensor cores read whole steps.
LORAPP_HD std::int64_t padded_rank(std::int64_t rank) { return ceil_div(rank, 64) * 64; }

/// A 4-bit weight, its low-rank term (Hu et al. 2021), and where they become a matrix of bf16:
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

/// Weights [rows, columns] that are multiplied with the same x, as one matrix of their rows one
/// below the other: of q, k and v, or of gate and up. Behind the columns lie R more for the ranks
/// of all parts, each part's B beside its own rows and zeros beside the others'; below the rows all
/// A. A weight is a stack of one.
struct LinearStack {
  LinearStack(const LinearWeight& weight)  // NOLINT: implicit
      : parts(&weight), count(1), matrix(weight.matrix) {}
  LinearStack(const LinearWeight* parts_, int count_, std::uint16_t* matrix_)
      : parts(parts_), count(count_), matrix(matrix_) {}

  const LinearWeight* parts;  // their own `matrix` is not read
  int count;
  std::uint16_t* matrix;  // [(rows + R) · (columns + R)]

  std::int64_t columns() const { return parts[0].w.columns; }
  /// The first row of part i; of i = count, the number of rows.
  std::int64_t row(int i) const {
    std::int64_t sum = 0;
    for (int part = 0; part < i; ++part) sum += parts[part].w.rows;
    return sum;
  }
  std::int64_t rows() const { return row(count); }
  /// The first of the ranks of part i among R, at 16 bytes.
  std::int64_t rank(int i) const {
    std::int64_t sum = 0;
    for (int part = 0; part < i; ++part) {
      if (parts[part].a != nullptr) sum += ceil_div(parts[part].rank, 8) * 8;
    }
    return sum;
  }
  /// Behind them, with what fills them up: R of the last part that has any.
  std::int64_t rank_end(int i) const { return rank(i + 1) < rank(count) ? rank(i + 1) : padding(); }
  std::int64_t padding() const { return padded_rank(rank(count)); }
  std::int64_t stride() const { return columns() + padding(); }
  std::int64_t matrix_size() const { return (rows() + padding()) * stride(); }
};

/// Fills stack.matrix: one dequantization, which a forward pass and a gradient can share.
int fill_matrix(const LinearStack& stack, void* stream);

/// y = added + x · Wᵀ + bias + u · Bᵀ, u = scale · input · Aᵀ, in bf16, of a filled matrix.
///
/// The low-rank term is part of the one product where x has room behind each row (x_and_u);
/// elsewhere it is added to y by a second product, which costs reading and writing y once more, as
/// x_and_u costs a copy of x: low_rank_joins says which is less.
struct LinearForwardArgs {
  const std::uint16_t* x;  // [tokens, columns]
  std::int64_t tokens;
  std::int64_t x_stride;
  const std::uint16_t* bias = nullptr;  // [rows], or null
  /// What the A of each part reads, [tokens, columns] with no gaps, or null for x; null: x for all.
  const std::uint16_t* const* inputs = nullptr;
  const std::uint16_t* added = nullptr;  // the residual, [tokens, rows], or null
  std::int64_t added_stride = 0;
  /// [tokens, columns + R], to become x | u; may be where x is, with that distance of rows. Null: u
  /// goes to `u`.
  std::uint16_t* x_and_u = nullptr;
  std::uint16_t* u = nullptr;  // [tokens, R]; not read beside x_and_u or without a low-rank term
  std::uint16_t* y;            // [tokens, rows]
  std::int64_t y_stride;
};
int linear_forward(const DenseProducts& products,
                   const LinearStack& stack,
                   const LinearForwardArgs& args,
                   void* stream);

/// dx = dy · W + v · A, v = scale · dy · B, and the gradients of A and B, of a filled matrix.
struct LinearBackwardArgs {
  const std::uint16_t* dy;  // [tokens, rows]
  std::int64_t tokens;
  std::int64_t dy_stride;
  /// [tokens, rows + R], to become dy | v, as x_and_u of the forward pass; null: v goes to `v`.
  std::uint16_t* dy_and_v = nullptr;
  std::uint16_t* v = nullptr;        // [tokens, R]
  const std::uint16_t* x = nullptr;  // [tokens, columns], what A has read; for da
  std::int64_t x_stride = 0;
  const std::uint16_t* const* inputs = nullptr;  // of the forward pass
  const std::uint16_t* u = nullptr;              // [tokens, R], of the forward pass; for db
  std::int64_t u_stride = 0;
  std::uint16_t* dx = nullptr;  // [tokens, columns], or null
  std::int64_t dx_stride = 0;
  /// v · A of each part, [tokens, columns] with no gaps, which dx then does not have; for inputs
  /// that are not x. Or null.
  std::uint16_t* const* dinputs = nullptr;
  float* da = nullptr;  // [R, columns]: of part i the rows from stack.rank(i) on; or null
  /// [rows, R]: of part i its rows, and the columns from stack.rank(i) on; the others hold what
  /// nobody reads. Or null.
  float* db = nullptr;
};
int linear_backward(const DenseProducts& products,
                    const LinearStack& stack,
                    const LinearBackwardArgs& args,
                    void* stream);

/// Whether to copy `copied` elements a token into rows with room for a low-rank term, rather than
/// to add the term to `added` elements a token.
LORAPP_HD bool low_rank_joins(std::int64_t copied, std::int64_t added) { return copied <= added; }

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
int head_loss(const DenseProducts& products,
              const HeadLossArgs& args,
              void* stream,
              std::int64_t chunk = 0);

}  // namespace lorapp::kernels::cuda
