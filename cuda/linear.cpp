// What training makes of products: a linear layer with a 4-bit weight for many tokens, one
// dequantization and a product that has the low-rank term in it; the head with the loss.
#include "kernels/cuda_products.hpp"

#include <cuda_runtime_api.h>

namespace lorapp::kernels::cuda {
namespace {

// The first failure of launches that follow each other.
class Launches {
 public:
  template <class F>
  Launches& then(F launch) {
    if (error_ == 0) error_ = launch();
    return *this;
  }
  int error() const { return error_; }

 private:
  int error_ = 0;
};

// Rows of bf16 into rows with another distance, unless they are there.
int place_rows(const std::uint16_t* from,
               std::int64_t from_stride,
               std::uint16_t* to,
               std::int64_t to_stride,
               std::int64_t rows,
               std::int64_t size,
               void* stream) {
  if (from == to) return from_stride == to_stride ? 0 : cudaErrorInvalidValue;
  return convert_rows(
      {from, Float::bf16, from_stride, rows, size, to, Float::bf16, to_stride, rows, size}, stream);
}

}  // namespace

int fill_matrix(const LinearWeight& weight, void* stream) {
  const std::int64_t rows = weight.w.rows, columns = weight.w.columns, r = weight.padding();
  DequantizeRowsArgs w = weight.w;
  w.out = weight.matrix;
  w.out_stride = weight.stride();
  w.out_type = Float::bf16;
  Launches launches;
  launches.then([&] { return dequantize_4bit(w, stream); });
  if (r > 0) {
    launches
        .then([&] {
          return convert_rows({weight.b, Float::f32, weight.rank, rows, weight.rank,
                               weight.matrix + columns, Float::bf16, weight.stride(), rows, r},
                              stream);
        })
        .then([&] {
          return convert_rows(
              {weight.a, Float::f32, columns, weight.rank, columns,
               weight.matrix + rows * weight.stride(), Float::bf16, weight.stride(), r, columns},
              stream);
        });
  }
  return launches.error();
}

int linear_forward(DenseProducts& products,
                   const LinearWeight& weight,
                   const LinearForwardArgs& args,
                   void* stream) {
  const std::int64_t rows = weight.w.rows, columns = weight.w.columns, r = weight.padding(),
                     stride = weight.stride();
  DenseProductArgs product{.x = args.x,
                           .x_stride = args.x_stride,
                           .w = weight.matrix,
                           .w_stride = stride,
                           .w_transposed = true,
                           .rows = args.tokens,
                           .depth = stride,
                           .columns = rows,
                           .type = Float::bf16,
                           .bias = args.bias,
                           .y = args.y,
                           .y_stride = args.y_stride,
                           .y_type = Float::bf16};
  if (r == 0) return products.multiply(product, stream);
  product.x = args.x_and_u;
  product.x_stride = stride;
  return Launches()
      .then([&] {
        return place_rows(args.x, args.x_stride, args.x_and_u, stride, args.tokens, columns,
                          stream);
      })
      .then([&] {
        return products.multiply({.x = args.x_and_u,
                                  .x_stride = stride,
                                  .w = weight.matrix + rows * stride,
                                  .w_stride = stride,
                                  .w_transposed = true,
                                  .rows = args.tokens,
                                  .depth = columns,
                                  .columns = r,
                                  .type = Float::bf16,
                                  .alpha = weight.scale,
                                  .y = args.x_and_u + columns,
                                  .y_stride = stride,
                                  .y_type = Float::bf16},
                                 stream);
      })
      .then([&] { return products.multiply(product, stream); })
      .error();
}

int linear_backward(DenseProducts& products,
                    const LinearWeight& weight,
                    const LinearBackwardArgs& args,
                    void* stream) {
  const std::int64_t rows = weight.w.rows, columns = weight.w.columns, r = weight.padding(),
                     stride = weight.stride();
  const std::int64_t with_v = rows + r;
  Launches launches;
  if (args.tokens == 0) {  // sums of nothing
    const auto clear = [&](float* out, std::int64_t out_rows, std::int64_t size) {
      if (out == nullptr) return 0;
      return convert_rows({out, Float::f32, size, 0, size, out, Float::f32, size, out_rows, size},
                          stream);
    };
    return launches.then([&] { return clear(args.da, r, columns); })
        .then([&] { return clear(args.db, rows, r); })
        .error();
  }
  if (r > 0) {
    launches
        .then([&] {
          return place_rows(args.dy, args.dy_stride, args.dy_and_v, with_v, args.tokens, rows,
                            stream);
        })
        .then([&] {
          return products.multiply({.x = args.dy_and_v,
                                    .x_stride = with_v,
                                    .w = weight.matrix + columns,
                                    .w_stride = stride,
                                    .rows = args.tokens,
                                    .depth = rows,
                                    .columns = r,
                                    .type = Float::bf16,
                                    .alpha = weight.scale,
                                    .y = args.dy_and_v + rows,
                                    .y_stride = with_v,
                                    .y_type = Float::bf16},
                                   stream);
        });
  }
  if (args.dx != nullptr) {
    launches.then([&] {
      return products.multiply({.x = r > 0 ? args.dy_and_v : args.dy,
                                .x_stride = r > 0 ? with_v : args.dy_stride,
                                .w = weight.matrix,
                                .w_stride = stride,
                                .rows = args.tokens,
                                .depth = with_v,
                                .columns = columns,
                                .type = Float::bf16,
                                .y = args.dx,
                                .y_stride = args.dx_stride,
                                .y_type = Float::bf16},
                               stream);
    });
  }
  // da = vᵀ · x, db = dyᵀ · u, sums over the tokens in f32.
  const auto of_tokens = [&](const std::uint16_t* left, std::int64_t left_size,
                             const std::uint16_t* right, std::int64_t right_size, float* out) {
    return products.multiply({.x = left,
                              .x_stride = with_v,
                              .x_transposed = true,
                              .w = right,
                              .w_stride = stride,
                              .rows = left_size,
                              .depth = args.tokens,
                              .columns = right_size,
                              .type = Float::bf16,
                              .y = out,
                              .y_stride = right_size,
                              .y_type = Float::f32},
                             stream);
  };
  if (r > 0 && args.da != nullptr) {
    launches.then(
        [&] { return of_tokens(args.dy_and_v + rows, r, args.x_and_u, columns, args.da); });
  }
  if (r > 0 && args.db != nullptr) {
    launches.then(
        [&] { return of_tokens(args.dy_and_v, rows, args.x_and_u + columns, r, args.db); });
  }
  return launches.error();
}

int head_loss(DenseProducts& products, const HeadLossArgs& args, void* stream, std::int64_t chunk) {
  if (chunk == 0) chunk = head_chunk(args.vocabulary);
  Launches launches;
  for (std::int64_t begin = 0; begin < args.rows && launches.error() == 0; begin += chunk) {
    const std::int64_t rows = args.rows - begin < chunk ? args.rows - begin : chunk;
    launches
        .then([&] {
          return products.multiply({.x = args.hidden + begin * args.size,
                                    .x_stride = args.size,
                                    .w = args.weight,
                                    .w_stride = args.size,
                                    .w_transposed = true,
                                    .rows = rows,
                                    .depth = args.size,
                                    .columns = args.vocabulary,
                                    .type = Float::bf16,
                                    .y = args.logits,
                                    .y_stride = args.vocabulary,
                                    .y_type = Float::bf16},
                                   stream);
        })
        .then([&] {
          return cross_entropy(
              {args.logits, Float::bf16, rows, args.vocabulary, args.labels + begin,
               args.dhidden != nullptr, args.grad_scale, args.largest + begin, args.sum + begin,
               args.picked + begin, nullptr},
              stream);
        });
    if (args.dhidden == nullptr) continue;
    launches.then([&] {
      return products.multiply({.x = args.logits,
                                .x_stride = args.vocabulary,
                                .w = args.weight,
                                .w_stride = args.size,
                                .rows = rows,
                                .depth = args.vocabulary,
                                .columns = args.size,
                                .type = Float::bf16,
                                .y = args.dhidden + begin * args.size,
                                .y_stride = args.size,
                                .y_type = Float::bf16},
                               stream);
    });
  }
  return launches.error();
}

}  // namespace lorapp::kernels::cuda
