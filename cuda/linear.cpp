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

// Matrices of bf16, and the sizes of a product.
struct Operand {
  const std::uint16_t* data;
  std::int64_t stride;
  bool transposed = false;
};
struct Result {
  void* data;
  std::int64_t stride;
};
struct Sizes {
  std::int64_t rows, depth, columns;
};
DenseProductArgs product_of(Operand x, Operand w, Sizes sizes, Result y, float alpha = 1.0f) {
  return {.x = x.data,
          .x_stride = x.stride,
          .x_transposed = x.transposed,
          .w = w.data,
          .w_stride = w.stride,
          .w_transposed = w.transposed,
          .rows = sizes.rows,
          .depth = sizes.depth,
          .columns = sizes.columns,
          .type = Float::bf16,
          .alpha = alpha,
          .y = y.data,
          .y_stride = y.stride,
          .y_type = Float::bf16};
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

int linear_forward(const DenseProducts& products,
                   const LinearWeight& weight,
                   const LinearForwardArgs& args,
                   void* stream) {
  const std::int64_t rows = weight.w.rows, columns = weight.w.columns, r = weight.padding(),
                     stride = weight.stride();
  const bool joined = r > 0 && args.x_and_u != nullptr;
  std::uint16_t* u = joined ? args.x_and_u + columns : args.u;
  const std::int64_t u_stride = joined ? stride : r;
  Launches launches;
  if (joined) {
    launches.then([&] {
      return place_rows(args.x, args.x_stride, args.x_and_u, stride, args.tokens, columns, stream);
    });
  }
  const std::uint16_t* x = joined ? args.x_and_u : args.x;
  const std::int64_t x_stride = joined ? stride : args.x_stride;
  if (r > 0) {
    launches.then([&] {
      return multiply(products,
                      product_of({args.input != nullptr ? args.input : x,
                                  args.input != nullptr ? columns : x_stride},
                                 {weight.matrix + rows * stride, stride, true},
                                 {args.tokens, columns, r}, {u, u_stride}, weight.scale),
                      stream);
    });
  }
  launches.then([&] {
    DenseProductArgs product =
        product_of({x, x_stride}, {weight.matrix, stride, true},
                   {args.tokens, joined ? stride : columns, rows}, {args.y, args.y_stride});
    product.bias = args.bias;
    return multiply(products, product, stream);
  });
  if (r > 0 && !joined) {
    launches.then([&] {
      DenseProductArgs product = product_of({u, u_stride}, {weight.matrix + columns, stride, true},
                                            {args.tokens, r, rows}, {args.y, args.y_stride});
      product.beta = 1.0f;
      return multiply(products, product, stream);
    });
  }
  return launches.error();
}

int linear_backward(const DenseProducts& products,
                    const LinearWeight& weight,
                    const LinearBackwardArgs& args,
                    void* stream) {
  const std::int64_t rows = weight.w.rows, columns = weight.w.columns, r = weight.padding(),
                     stride = weight.stride();
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
  const bool joined = r > 0 && args.dy_and_v != nullptr;
  std::uint16_t* v = joined ? args.dy_and_v + rows : args.v;
  const std::int64_t v_stride = joined ? rows + r : r;
  if (joined) {
    launches.then([&] {
      return place_rows(args.dy, args.dy_stride, args.dy_and_v, rows + r, args.tokens, rows,
                        stream);
    });
  }
  const std::uint16_t* dy = joined ? args.dy_and_v : args.dy;
  const std::int64_t dy_stride = joined ? rows + r : args.dy_stride;
  if (r > 0) {
    launches.then([&] {
      return multiply(products,
                      product_of({dy, dy_stride}, {weight.matrix + columns, stride},
                                 {args.tokens, rows, r}, {v, v_stride}, weight.scale),
                      stream);
    });
  }
  // v · A, into what there may be.
  const auto through_a = [&](std::uint16_t* out, std::int64_t out_stride, float beta) {
    DenseProductArgs product = product_of({v, v_stride}, {weight.matrix + rows * stride, stride},
                                          {args.tokens, r, columns}, {out, out_stride});
    product.beta = beta;
    return multiply(products, product, stream);
  };
  if (args.dx != nullptr) {
    const bool with_v = joined && args.dinput == nullptr;
    launches.then([&] {
      return multiply(
          products,
          product_of({dy, dy_stride}, {weight.matrix, stride},
                     {args.tokens, with_v ? rows + r : rows, columns}, {args.dx, args.dx_stride}),
          stream);
    });
    if (r > 0 && !joined && args.dinput == nullptr) {
      launches.then([&] { return through_a(args.dx, args.dx_stride, 1.0f); });
    }
  }
  if (r > 0 && args.dinput != nullptr) {
    launches.then([&] { return through_a(args.dinput, columns, 0.0f); });
  }
  // da = vᵀ · input, db = dyᵀ · u, sums over the tokens in f32.
  const auto of_tokens = [&](Operand left, std::int64_t left_size, Operand right,
                             std::int64_t right_size, float* out) {
    left.transposed = true;
    DenseProductArgs product =
        product_of(left, right, {left_size, args.tokens, right_size}, {out, right_size});
    product.y_type = Float::f32;
    return multiply(products, product, stream);
  };
  if (r > 0 && args.da != nullptr) {
    launches.then([&] {
      return of_tokens({v, v_stride}, r, {args.input, args.input_stride}, columns, args.da);
    });
  }
  if (r > 0 && args.db != nullptr) {
    launches.then([&] {
      return of_tokens({dy, dy_stride}, rows, {args.u, args.u_stride}, r, args.db);
    });
  }
  return launches.error();
}

int head_loss(const DenseProducts& products,
              const HeadLossArgs& args,
              void* stream,
              std::int64_t chunk) {
  if (chunk == 0) chunk = head_chunk(args.vocabulary);
  Launches launches;
  for (std::int64_t begin = 0; begin < args.rows && launches.error() == 0; begin += chunk) {
    const std::int64_t rows = args.rows - begin < chunk ? args.rows - begin : chunk;
    launches
        .then([&] {
          return multiply(
              products,
              product_of({args.hidden + begin * args.size, args.size},
                         {args.weight, args.size, true}, {rows, args.size, args.vocabulary},
                         {args.logits, args.vocabulary}),
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
      return multiply(products,
                      product_of({args.logits, args.vocabulary}, {args.weight, args.size},
                                 {rows, args.vocabulary, args.size},
                                 {args.dhidden + begin * args.size, args.size}),
                      stream);
    });
  }
  return launches.error();
}

}  // namespace lorapp::kernels::cuda
