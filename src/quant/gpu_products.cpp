// Products with a 4-bit weight on a GPU, and their gradients.
#include "quant/gpu.hpp"
#include "quant/gpu_ops.hpp"
#include "quant/gpu_weight.hpp"
#include "quant/row_block.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lorapp::detail {
namespace {

namespace cuda = kernels::cuda;

constexpr const char* kOp = "linear_4bit";

bool aligned(const at::Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

// As [rows, last dimension] of bfloat16, with no gaps, where kernels load 16 bytes at a time.
at::Tensor halves(const at::Tensor& x) {
  const std::int64_t size = x.size(-1);
  const at::Tensor rows = x.reshape({x.numel() / size, size}).to(at::kBFloat16).contiguous();
  return aligned(rows) ? rows : rows.clone();
}

const std::uint16_t* read(const at::Tensor& x) {
  return static_cast<const std::uint16_t*>(x.const_data_ptr());
}
std::uint16_t* write(const at::Tensor& x) {
  return static_cast<std::uint16_t*>(x.mutable_data_ptr());
}
const float* read_f32(const at::Tensor& x) { return x.const_data_ptr<float>(); }

at::Tensor new_halves(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().dtype(at::kBFloat16));
}

// Layers as kernels read them, and the tensors that keep them there.
struct Operand {
  std::vector<cuda::LinearWeight> parts;
  std::vector<at::Tensor> kept;
  at::Tensor matrix;

  cuda::LinearStack stack() const {
    return {parts.data(), static_cast<int>(parts.size()),
            matrix.defined() ? write(matrix) : nullptr};
  }
};

Operand operand_of(const std::vector<GpuLayer>& layers) {
  Operand operand;
  for (const GpuLayer& layer : layers) {
    cuda::LinearWeight part{};
    part.w = gpu_codes(layer.w);
    part.w.rows = layer.w.size(0);
    part.w.columns = layer.w.size(1);
    if (layer.low_rank != nullptr) {
      const at::Tensor a = layer.low_rank->a.contiguous(), b = layer.low_rank->b.contiguous();
      part.a = read_f32(a);
      part.b = read_f32(b);
      part.rank = a.size(0);
      part.scale = static_cast<float>(layer.low_rank->scale);
      operand.kept.insert(operand.kept.end(), {a, b});
    }
    operand.parts.push_back(part);
  }
  return operand;
}

// Makes the matrix of products of many tokens, unless `made` is one.
void fill(const GpuScope& scope, Operand& operand, const at::Tensor& like, const at::Tensor& made) {
  operand.matrix = made.defined() ? made : new_halves(like, {operand.stack().matrix_size()});
  if (made.defined()) return;
  const cuda::LinearStack stack = operand.stack();
  scope.check(scope.kernels().fill_matrix(stack, scope.stream()), "fill_matrix", stack.rows(),
              " rows of ", stack.columns(), ", ranks ", stack.padding());
}

at::Tensor product_space(const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(cuda::kProductSpaceBytes)},
                   like.options().dtype(at::kByte));
}

bool masks(const GpuLayer& layer) {
  return layer.low_rank != nullptr && static_cast<bool>(layer.low_rank->mask);
}

// What the A of each layer reads where it is not x, and pointers to it; no pointers where all read
// x.
struct Inputs {
  std::vector<at::Tensor> tensors;
  std::vector<const std::uint16_t*> pointers;

  const std::uint16_t* const* data() const { return pointers.empty() ? nullptr : pointers.data(); }
};

Inputs inputs_of(const std::vector<GpuLayer>& layers, const at::Tensor& x) {
  Inputs inputs;
  if (std::none_of(layers.begin(), layers.end(), masks)) return inputs;
  for (const GpuLayer& layer : layers) {
    inputs.tensors.push_back(masks(layer) ? halves(low_rank_input(*layer.low_rank, x))
                                          : at::Tensor());
    inputs.pointers.push_back(masks(layer) ? read(inputs.tensors.back()) : nullptr);
  }
  return inputs;
}

// Of few tokens u is float32, [tokens, rank].
struct Product {
  at::Tensor y, u;
};

// y of few tokens, with the codes as they are.
Product few_tokens(const GpuScope& scope,
                   const cuda::LinearWeight& weight,
                   const at::Tensor& x,
                   const std::uint16_t* input,
                   const at::Tensor* bias) {
  const std::int64_t tokens = x.size(0);
  at::Tensor u, wide_bias;
  if (weight.a != nullptr) {
    u = at::empty({tokens, weight.rank}, x.options().dtype(at::kFloat));
    scope.check(scope.kernels().low_rank_rows(
                    {input != nullptr ? input : read(x), tokens, weight.w.columns, weight.a,
                     weight.rank, weight.scale, u.mutable_data_ptr<float>()},
                    scope.stream()),
                "low_rank_rows", tokens, " rows of ", weight.w.columns, ", rank ", weight.rank);
  }
  if (bias != nullptr) wide_bias = bias->to(at::kBFloat16).to(at::kFloat).contiguous();
  const at::Tensor y = new_halves(x, {tokens, weight.w.rows});
  scope.check(
      scope.kernels().small_product({.x = read(x),
                                     .tokens = tokens,
                                     .codes = weight.w.codes,
                                     .rows = weight.w.rows,
                                     .columns = weight.w.columns,
                                     .blocksize = weight.w.blocksize,
                                     .value = weight.w.value,
                                     .absmax = weight.w.absmax,
                                     .nested = weight.w.nested,
                                     .nested_absmax = weight.w.nested_absmax,
                                     .nested_blocksize = weight.w.nested_blocksize,
                                     .map = weight.w.map,
                                     .offset = weight.w.offset,
                                     .bias = bias != nullptr ? read_f32(wide_bias) : nullptr,
                                     .u = u.defined() ? read_f32(u) : nullptr,
                                     .b = weight.b,
                                     .rank = weight.rank,
                                     .y = write(y)},
                                    scope.stream()),
      "small_product", tokens, " rows of ", weight.w.columns, " times ", weight.w.rows,
      " in blocks of ", weight.w.blocksize);
  return {y, u};
}

// Whether all layers take these tokens as few.
bool are_few(const GpuScope& scope, const std::vector<GpuLayer>& layers, std::int64_t tokens) {
  return std::all_of(layers.begin(), layers.end(), [&](const GpuLayer& layer) {
    const QuantizedTensor& w = layer.w;
    return cuda::choose_product(scope.gpu(), tokens, w.size(0), w.size(1), w.blocksize()) ==
               cuda::ProductKind::small &&
           aligned(w.tables().codes);
  });
}

// The biases of all layers behind each other, zeros for those without; undefined where none has
// one.
at::Tensor biases_of(const std::vector<GpuLayer>& layers, std::int64_t rows, const at::Tensor& x) {
  at::Tensor biases;
  std::int64_t row = 0;
  for (const GpuLayer& layer : layers) {
    const std::int64_t end = row + layer.w.size(0);
    if (layer.bias != nullptr) {
      if (!biases.defined()) biases = at::zeros({rows}, x.options());
      biases.slice(0, row, end).copy_(*layer.bias);
    }
    row = end;
  }
  return biases;
}

// y of many tokens, [tokens, all rows], of a filled matrix, with `added` if that is defined; u in
// bfloat16, [tokens, R].
Product many_tokens(const GpuScope& scope,
                    const cuda::LinearStack& stack,
                    const std::vector<GpuLayer>& layers,
                    const at::Tensor& x,
                    const Inputs& inputs,
                    const at::Tensor& added,
                    bool keeps_u) {
  const std::int64_t tokens = x.size(0), rows = stack.rows(), columns = stack.columns();
  const bool joins = stack.padding() > 0 && cuda::low_rank_joins(columns, rows);
  at::Tensor x_and_u, u;
  if (joins) {
    x_and_u = new_halves(x, {tokens, stack.stride()});
  } else if (stack.padding() > 0) {
    u = new_halves(x, {tokens, stack.padding()});
  }
  const at::Tensor bias = biases_of(layers, rows, x), y = new_halves(x, {tokens, rows}),
                   space = product_space(x);
  scope.check(scope.kernels().linear_forward(scope.products(space), stack,
                                             {.x = read(x),
                                              .tokens = tokens,
                                              .x_stride = columns,
                                              .bias = bias.defined() ? read(bias) : nullptr,
                                              .inputs = inputs.data(),
                                              .added = added.defined() ? read(added) : nullptr,
                                              .added_stride = rows,
                                              .x_and_u = joins ? write(x_and_u) : nullptr,
                                              .u = u.defined() ? write(u) : nullptr,
                                              .y = write(y),
                                              .y_stride = rows},
                                             scope.stream()),
              "linear_forward", tokens, " rows of ", columns, " times ", rows, ", ranks ",
              stack.padding());
  if (joins && keeps_u) u = x_and_u.slice(1, columns).contiguous();
  return {y, u};
}

// Gradients of several layers that lie next to each other, columns of one tensor, as all of its
// rows; undefined where they do not, or where kernels could not load 16 bytes at a time.
at::Tensor neighbours(const std::vector<at::Tensor>& dy) {
  std::int64_t columns = 0;
  const auto follows = [&](const at::Tensor& each) {
    const bool fits = each.defined() && each.is_alias_of(dy[0]) && each.dim() == 2 &&
                      each.scalar_type() == at::kBFloat16 && each.stride(1) == 1 &&
                      each.stride(0) == dy[0].stride(0) && read(each) == read(dy[0]) + columns;
    if (fits) columns += each.size(1);
    return fits;
  };
  if (dy.size() < 2 || !std::all_of(dy.begin(), dy.end(), follows) || columns > dy[0].stride(0) ||
      dy[0].stride(0) % 8 != 0 || !aligned(dy[0])) {
    return {};
  }
  return at::as_strided(dy[0], {dy[0].size(0), columns}, {dy[0].stride(0), 1});
}

}  // namespace

bool gpu_multiplies(const QuantizedTensor& w, at::ScalarType compute_dtype) {
  return compute_dtype == at::kBFloat16 && w.dim() == 2 && w.size(0) % 8 == 0 &&
         w.size(1) % 8 == 0 && on_gpu(w.device());
}

GpuForward gpu_forward(const at::Tensor& x,
                       const std::vector<GpuLayer>& layers,
                       at::Tensor* matrix) {
  const GpuScope scope(x.device(), kOp);
  const at::Tensor rows = halves(x);
  const Inputs inputs = inputs_of(layers, x);
  Operand operand = operand_of(layers);
  const bool keeps_u = std::any_of(layers.begin(), layers.end(), [](const GpuLayer& layer) {
    return layer.low_rank != nullptr && layer.low_rank->b.requires_grad();
  });
  GpuForward found;
  const auto give = [&](const at::Tensor& y, const at::Tensor* added) {
    const at::Tensor own = y.to(x.scalar_type()).reshape(resized(x, y.size(-1)));
    found.y.push_back(added != nullptr ? at::add(*added, own) : own);
  };
  if (are_few(scope, layers, rows.size(0))) {
    const cuda::LinearStack stack = operand.stack();
    if (keeps_u) found.u = at::zeros({rows.size(0), stack.padding()}, rows.options());
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const Product few =
          few_tokens(scope, operand.parts[i], rows,
                     inputs.pointers.empty() ? nullptr : inputs.pointers[i], layers[i].bias);
      give(few.y, layers[i].added);
      if (!keeps_u || !few.u.defined()) continue;
      const std::int64_t first = stack.rank(static_cast<int>(i));
      found.u.slice(1, first, first + few.u.size(1)).copy_(few.u);
    }
    return found;
  }
  fill(scope, operand, rows, at::Tensor());
  if (matrix != nullptr) *matrix = operand.matrix;
  // A residual in another type keeps its precision: it is added to y, not in the product.
  const at::Tensor* added = layers.front().added;
  const bool adds = added != nullptr && added->scalar_type() == at::kBFloat16;
  const auto [y, u] = many_tokens(scope, operand.stack(), layers, rows, inputs,
                                  adds ? halves(*added) : at::Tensor(), keeps_u);
  if (keeps_u) found.u = u;
  std::int64_t row = 0;
  for (const GpuLayer& layer : layers) {
    const std::int64_t end = row + layer.w.size(0);
    give(layers.size() == 1 ? y : y.slice(1, row, end), adds ? nullptr : layer.added);
    row = end;
  }
  return found;
}

GpuGradients gpu_backward(const GpuBackwardInput& given, const GpuWanted& wanted) {
  const std::vector<GpuLayer>& layers = given.layers;
  const auto defined = [](const at::Tensor& x) { return x.defined(); };
  const auto any = std::find_if(given.dy.begin(), given.dy.end(), defined);
  if (any == given.dy.end())
    return {{}, std::vector<at::Tensor>(layers.size()), std::vector<at::Tensor>(layers.size())};
  const at::Tensor& like = *any;
  const GpuScope scope(like.device(), kOp);
  Operand operand = operand_of(layers);
  const std::int64_t tokens = like.numel() / like.size(-1);
  const auto options = like.options().dtype(at::kBFloat16);
  const at::Tensor sample = at::empty({0}, options);
  fill(scope, operand, sample, given.matrix);
  const cuda::LinearStack stack = operand.stack();
  const std::int64_t out = stack.rows(), in = stack.columns(), padding = stack.padding();
  const bool any_masks = std::any_of(layers.begin(), layers.end(), masks);

  // Gradients of several layers that are not neighbours are gathered, with room for v.
  at::Tensor dy = layers.size() == 1 ? halves(like) : neighbours(given.dy), v, dx, da, db;
  const bool gathers = !dy.defined();
  const bool joins =
      padding > 0 && (gathers || (wanted.x && !any_masks && cuda::low_rank_joins(out, in)));
  if (gathers) {
    dy = at::empty({tokens, joins ? out + padding : out}, options);
    std::int64_t row = 0;
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::int64_t end = row + layers[i].w.size(0);
      const at::Tensor place = dy.slice(1, row, end);
      if (given.dy[i].defined()) {
        place.copy_(given.dy[i].reshape({tokens, end - row}));
      } else {
        place.zero_();
      }
      row = end;
    }
  }
  at::Tensor dy_and_v;
  if (joins) dy_and_v = gathers ? dy : at::empty({tokens, out + padding}, options);
  if (padding > 0 && !joins) v = at::empty({tokens, padding}, options);
  if (wanted.x) dx = at::empty({tokens, in}, options);

  const auto is_wanted = [](const std::vector<bool>& flags) {
    return std::find(flags.begin(), flags.end(), true) != flags.end();
  };
  Inputs inputs;
  at::Tensor x;
  const auto f32 = like.options().dtype(at::kFloat);
  if (is_wanted(wanted.a)) {
    const at::Tensor as_it_was = given.x();
    inputs = inputs_of(layers, as_it_was);
    x = halves(as_it_was);
    da = at::empty({padding, in}, f32);
  } else if (any_masks) {
    inputs.pointers.assign(layers.size(), nullptr);  // ranks stay apart; nothing is read
  }
  if (is_wanted(wanted.b)) db = at::empty({out, padding}, f32);
  std::vector<at::Tensor> dinput(layers.size());
  std::vector<std::uint16_t*> dinputs;
  if (any_masks && wanted.x) {
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (layers[i].low_rank != nullptr) dinput[i] = at::empty({tokens, in}, options);
      dinputs.push_back(dinput[i].defined() ? write(dinput[i]) : nullptr);
    }
  }
  const at::Tensor space = product_space(sample);
  const auto pointer = [](const at::Tensor& t) { return t.defined() ? write(t) : nullptr; };
  scope.check(
      scope.kernels().linear_backward(scope.products(space), stack,
                                      {.dy = read(dy),
                                       .tokens = tokens,
                                       .dy_stride = dy.stride(0),
                                       .dy_and_v = pointer(dy_and_v),
                                       .v = pointer(v),
                                       .x = x.defined() ? read(x) : nullptr,
                                       .x_stride = in,
                                       .inputs = inputs.data(),
                                       .u = given.u.defined() ? read(given.u) : nullptr,
                                       .u_stride = padding,
                                       .dx = pointer(dx),
                                       .dx_stride = in,
                                       .dinputs = dinputs.empty() ? nullptr : dinputs.data(),
                                       .da = da.defined() ? da.mutable_data_ptr<float>() : nullptr,
                                       .db = db.defined() ? db.mutable_data_ptr<float>() : nullptr},
                                      scope.stream()),
      "linear_backward", tokens, " rows of ", out, " times ", in, ", ranks ", padding);

  GpuGradients gradients{
      {}, std::vector<at::Tensor>(layers.size()), std::vector<at::Tensor>(layers.size())};
  if (wanted.x) {
    const std::vector<std::int64_t> shape = resized(like, in);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      if (!dinput[i].defined()) continue;
      const at::Tensor through = dinput[i].reshape(shape);
      dx.add_(
          (masks(layers[i]) ? layers[i].low_rank->mask(through) : through).reshape({tokens, in}));
    }
    gradients.x = dx.to(like.scalar_type()).reshape(shape);
  }
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const int part = static_cast<int>(i);
    const std::int64_t first = stack.rank(part), rank = operand.parts[i].rank;
    if (wanted.a[i]) gradients.a[i] = da.slice(0, first, first + rank);
    if (wanted.b[i]) {
      gradients.b[i] = db.slice(0, stack.row(part), stack.row(part) + layers[i].w.size(0))
                           .slice(1, first, first + rank)
                           .contiguous();
    }
  }
  return gradients;
}

}  // namespace lorapp::detail
