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
struct Ranks {
  std::uint16_t* data;
  std::int64_t stride;
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

// Ranks that one product makes: of all parts, or of one.
struct RankGroup {
  int part;  // the first
  std::int64_t first, count;
  float scale;
  const std::uint16_t* input;  // null: x
};

// Calls f(RankGroup) for groups that make up all ranks: one where every part has the same scale and
// reads x, else a group a part.
template <class F>
void for_each_group(const LinearStack& stack, const std::uint16_t* const* inputs, F f) {
  if (stack.padding() == 0) return;
  const LinearWeight* first = nullptr;
  bool alike = inputs == nullptr;
  for (int i = 0; i < stack.count; ++i) {
    const LinearWeight& part = stack.parts[i];
    if (part.a == nullptr) continue;
    if (first == nullptr) first = &part;
    alike = alike && part.scale == first->scale;
  }
  if (alike) return f(RankGroup{0, 0, stack.padding(), first->scale, nullptr});
  for (int i = 0; i < stack.count; ++i) {
    const LinearWeight& part = stack.parts[i];
    if (part.a == nullptr) continue;
    const std::int64_t begin = stack.rank(i);
    f(RankGroup{i, begin, stack.rank_end(i) - begin, part.scale,
                inputs != nullptr ? inputs[i] : nullptr});
  }
}

}  // namespace

int fill_matrix(const LinearStack& stack, void* stream) {
  const std::int64_t rows = stack.rows(), columns = stack.columns(), stride = stack.stride(),
                     ranks = stack.padding();
  Launches launches;
  // A [rows, size] of f32 in the place of `to`, whose other elements become 0.
  const auto place = [&](const float* from, std::int64_t from_rows, std::int64_t from_size,
                         std::uint16_t* to, std::int64_t to_rows, std::int64_t to_size) {
    if (to_rows == 0 || to_size == 0) return;
    launches.then([&] {
      return convert_rows({from, Float::f32, from_size, from_rows, from_size, to, Float::bf16,
                           stride, to_rows, to_size},
                          stream);
    });
  };
  for (int i = 0; i < stack.count; ++i) {
    const LinearWeight& part = stack.parts[i];
    std::uint16_t* own_rows = stack.matrix + stack.row(i) * stride;
    DequantizeRowsArgs w = part.w;
    w.out = own_rows;
    w.out_stride = stride;
    w.out_type = Float::bf16;
    launches.then([&] { return dequantize_4bit(w, stream); });
    if (part.a == nullptr) {
      place(nullptr, 0, 0, own_rows + columns, part.w.rows, ranks);
      continue;
    }
    const std::int64_t first = stack.rank(i);
    place(nullptr, 0, 0, own_rows + columns, part.w.rows, first);
    place(part.b, part.w.rows, part.rank, own_rows + columns + first, part.w.rows, ranks - first);
    place(part.a, part.rank, columns, stack.matrix + (rows + first) * stride,
          stack.rank_end(i) - first, columns);
  }
  return launches.error();
}

int linear_forward(const DenseProducts& products,
                   const LinearStack& stack,
                   const LinearForwardArgs& args,
                   void* stream) {
  const std::int64_t rows = stack.rows(), columns = stack.columns(), ranks = stack.padding(),
                     stride = stack.stride();
  const bool joined = ranks > 0 && args.x_and_u != nullptr;
  const Ranks u{joined ? args.x_and_u + columns : args.u, joined ? stride : ranks};
  const Operand x{joined ? args.x_and_u : args.x, joined ? stride : args.x_stride};
  Launches launches;
  if (joined) {
    launches.then([&] {
      return place_rows(args.x, args.x_stride, args.x_and_u, stride, args.tokens, columns, stream);
    });
  }
  for_each_group(stack, args.inputs, [&](const RankGroup& group) {
    launches.then([&] {
      return multiply(products,
                      product_of(group.input != nullptr ? Operand{group.input, columns} : x,
                                 {stack.matrix + (rows + group.first) * stride, stride, true},
                                 {args.tokens, columns, group.count},
                                 {u.data + group.first, u.stride}, group.scale),
                      stream);
    });
  });
  launches.then([&] {
    DenseProductArgs product =
        product_of(x, {stack.matrix, stride, true}, {args.tokens, joined ? stride : columns, rows},
                   {args.y, args.y_stride});
    product.bias = args.bias;
    if (args.added != nullptr) product.beta = 1.0f;
    product.c = args.added;
    product.c_stride = args.added_stride;
    return multiply(products, product, stream);
  });
  if (ranks > 0 && !joined) {
    launches.then([&] {
      DenseProductArgs product =
          product_of({u.data, u.stride}, {stack.matrix + columns, stride, true},
                     {args.tokens, ranks, rows}, {args.y, args.y_stride});
      product.beta = 1.0f;
      return multiply(products, product, stream);
    });
  }
  return launches.error();
}

int linear_backward(const DenseProducts& products,
                    const LinearStack& stack,
                    const LinearBackwardArgs& args,
                    void* stream) {
  const std::int64_t rows = stack.rows(), columns = stack.columns(), ranks = stack.padding(),
                     stride = stack.stride();
  Launches launches;
  if (args.tokens == 0) {  // sums of nothing
    const auto clear = [&](float* out, std::int64_t out_rows, std::int64_t size) {
      if (out == nullptr) return 0;
      return convert_rows({out, Float::f32, size, 0, size, out, Float::f32, size, out_rows, size},
                          stream);
    };
    return launches.then([&] { return clear(args.da, ranks, columns); })
        .then([&] { return clear(args.db, rows, ranks); })
        .error();
  }
  const bool joined = ranks > 0 && args.dy_and_v != nullptr;
  const Ranks v{joined ? args.dy_and_v + rows : args.v, joined ? rows + ranks : ranks};
  const Operand dy{joined ? args.dy_and_v : args.dy, joined ? rows + ranks : args.dy_stride};
  if (joined) {
    launches.then([&] {
      return place_rows(args.dy, args.dy_stride, args.dy_and_v, rows + ranks, args.tokens, rows,
                        stream);
    });
  }
  const auto a_of = [&](const RankGroup& group) {
    return Operand{stack.matrix + (rows + group.first) * stride, stride};
  };
  for_each_group(stack, args.inputs, [&](const RankGroup& group) {
    launches.then([&] {
      return multiply(products,
                      product_of(dy, {stack.matrix + columns + group.first, stride},
                                 {args.tokens, rows, group.count}, {v.data + group.first, v.stride},
                                 group.scale),
                      stream);
    });
  });
  if (args.dx != nullptr) {
    const bool with_v = joined && args.dinputs == nullptr;
    launches.then([&] {
      return multiply(products,
                      product_of(dy, {stack.matrix, stride},
                                 {args.tokens, with_v ? rows + ranks : rows, columns},
                                 {args.dx, args.dx_stride}),
                      stream);
    });
    if (ranks > 0 && !joined && args.dinputs == nullptr) {
      launches.then([&] {
        DenseProductArgs product =
            product_of({v.data, v.stride}, {stack.matrix + rows * stride, stride},
                       {args.tokens, ranks, columns}, {args.dx, args.dx_stride});
        product.beta = 1.0f;
        return multiply(products, product, stream);
      });
    }
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
  for_each_group(stack, args.inputs, [&](const RankGroup& group) {
    const Operand own_v{v.data + group.first, v.stride};
    if (args.dinputs != nullptr && args.dinputs[group.part] != nullptr) {
      launches.then([&] {
        return multiply(products,
                        product_of(own_v, a_of(group), {args.tokens, group.count, columns},
                                   {args.dinputs[group.part], columns}),
                        stream);
      });
    }
    if (args.da == nullptr) return;
    launches.then([&] {
      return of_tokens(
          own_v, group.count,
          group.input != nullptr ? Operand{group.input, columns} : Operand{args.x, args.x_stride},
          columns, args.da + group.first * columns);
    });
  });
  if (ranks > 0 && args.db != nullptr) {
    launches.then([&] { return of_tokens(dy, rows, {args.u, args.u_stride}, ranks, args.db); });
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
