// Products with 4-bit weights on a GPU.
#include "quant/gpu_operand.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lorapp::detail {
namespace {

struct Product {
  at::Tensor y, u;
};

// y of few tokens for each layer, with the codes as they are; u in float32, [tokens, rank].
std::vector<Product> few_tokens(const GpuScope& scope,
                                const std::vector<cuda::LinearWeight>& weights,
                                const std::vector<GpuLayer>& layers,
                                const at::Tensor& x,
                                const Inputs& inputs,
                                const at::Tensor& added) {
  const std::int64_t tokens = x.size(0), columns = x.size(1);
  std::vector<Product> products;
  std::vector<at::Tensor> biases;
  std::vector<cuda::SmallProductArgs> parts;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const cuda::LinearWeight& weight = weights[i];
    at::Tensor u, bias;
    if (weight.a != nullptr) {
      const std::uint16_t* input = inputs.pointers.empty() ? nullptr : inputs.pointers[i];
      u = at::empty({tokens, weight.rank}, x.options().dtype(at::kFloat));
      scope.check(scope.kernels().low_rank_rows(
                      {input != nullptr ? input : read_bf16(x), tokens, columns, weight.a,
                       weight.rank, weight.scale, u.mutable_data_ptr<float>()},
                      scope.stream()),
                  "low_rank_rows", tokens, " rows of ", columns, ", rank ", weight.rank);
    }
    if (layers[i].bias != nullptr) {
      bias = layers[i].bias->to(at::kBFloat16).to(at::kFloat).contiguous();
      biases.push_back(bias);
    }
    products.push_back({new_halves(x, {tokens, weight.w.rows}), u});
    parts.push_back({.x = read_bf16(x),
                     .tokens = tokens,
                     .codes = weight.w.codes,
                     .rows = weight.w.rows,
                     .columns = columns,
                     .blocksize = weight.w.blocksize,
                     .value = weight.w.value,
                     .absmax = weight.w.absmax,
                     .nested = weight.w.nested,
                     .nested_absmax = weight.w.nested_absmax,
                     .nested_blocksize = weight.w.nested_blocksize,
                     .map = weight.w.map,
                     .offset = weight.w.offset,
                     .bias = bias.defined() ? read_f32(bias) : nullptr,
                     .u = u.defined() ? read_f32(u) : nullptr,
                     .b = weight.b,
                     .rank = weight.rank,
                     .added = added.defined() ? read_bf16(added) : nullptr,
                     .y = write_bf16(products.back().y)});
  }
  // As many as a launch takes.
  for (std::size_t begin = 0; begin < parts.size();) {
    std::size_t end = begin + 1;
    while (end < parts.size() && end - begin < cuda::kMostSmallProducts &&
           std::equal(parts[end].value, parts[end].value + 16, parts[begin].value)) {
      ++end;
    }
    std::int64_t rows = 0;
    for (std::size_t i = begin; i < end; ++i) rows += parts[i].rows;
    scope.check(scope.kernels().small_products(&parts[begin], static_cast<int>(end - begin),
                                               scope.stream()),
                "small_products", tokens, " rows of ", columns, " times ", rows, " in blocks of ",
                parts[begin].blocksize);
    begin = end;
  }
  return products;
}

// Whether all layers take these tokens as few; they are one launch.
bool are_few(const GpuScope& scope, const std::vector<GpuLayer>& layers, std::int64_t tokens) {
  std::int64_t rows = 0;
  for (const GpuLayer& layer : layers) rows += layer.w.size(0);
  return std::all_of(layers.begin(), layers.end(), [&](const GpuLayer& layer) {
    const QuantizedTensor& w = layer.w;
    return cuda::choose_product(scope.gpu(), tokens, rows, w.size(1), w.blocksize()) ==
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
                                             {.x = read_bf16(x),
                                              .tokens = tokens,
                                              .x_stride = columns,
                                              .bias = bias.defined() ? read_bf16(bias) : nullptr,
                                              .inputs = inputs.data(),
                                              .added = added.defined() ? read_bf16(added) : nullptr,
                                              .added_stride = rows,
                                              .x_and_u = joins ? write_bf16(x_and_u) : nullptr,
                                              .u = u.defined() ? write_bf16(u) : nullptr,
                                              .y = write_bf16(y),
                                              .y_stride = rows},
                                             scope.stream()),
              "linear_forward", tokens, " rows of ", columns, " times ", rows, ", ranks ",
              stack.padding());
  if (joins && keeps_u) u = x_and_u.slice(1, columns).contiguous();
  return {y, u};
}

}  // namespace

bool gpu_multiplies(const QuantizedTensor& w, at::ScalarType compute_dtype) {
  return compute_dtype == at::kBFloat16 && w.dim() == 2 && w.size(0) % 8 == 0 &&
         w.size(1) % 8 == 0 && on_gpu(w.device());
}

GpuForward gpu_forward(const at::Tensor& x,
                       const std::vector<GpuLayer>& layers,
                       at::Tensor* matrix) {
  const GpuScope scope(x.device(), kGpuLinear);
  const at::Tensor rows = halves(x);
  const Inputs inputs = inputs_of(layers, x);
  Operand operand = operand_of(layers);
  const bool keeps_u = std::any_of(layers.begin(), layers.end(), [](const GpuLayer& layer) {
    return layer.low_rank != nullptr && layer.low_rank->b.requires_grad();
  });
  // A residual in another type keeps its precision: it is added to y, not in the product.
  const at::Tensor* added = layers.front().added;
  const bool adds = added != nullptr && added->scalar_type() == at::kBFloat16;
  const at::Tensor in_product = adds ? halves(*added) : at::Tensor();
  GpuForward found;
  const auto give = [&](const at::Tensor& y) {
    const at::Tensor own = y.to(x.scalar_type()).reshape(resized(x, y.size(-1)));
    found.y.push_back(added != nullptr && !adds ? at::add(*added, own) : own);
  };
  if (are_few(scope, layers, rows.size(0))) {
    const auto products = few_tokens(scope, operand.parts, layers, rows, inputs, in_product);
    const cuda::LinearStack stack = operand.stack();
    if (keeps_u) found.u = at::zeros({rows.size(0), stack.padding()}, rows.options());
    for (std::size_t i = 0; i < products.size(); ++i) {
      const auto& [y, u] = products[i];
      give(y);
      if (!keeps_u || !u.defined()) continue;
      const std::int64_t first = stack.rank(static_cast<int>(i));
      found.u.slice(1, first, first + u.size(1)).copy_(u);
    }
    return found;
  }
  fill(scope, operand, rows, at::Tensor());
  if (matrix != nullptr) *matrix = operand.matrix;
  const auto [y, u] =
      many_tokens(scope, operand.stack(), layers, rows, inputs, in_product, keeps_u);
  if (keeps_u) found.u = u;
  std::int64_t row = 0;
  for (const GpuLayer& layer : layers) {
    const std::int64_t end = row + layer.w.size(0);
    give(layers.size() == 1 ? y : y.slice(1, row, end));
    row = end;
  }
  return found;
}

}  // namespace lorapp::detail
