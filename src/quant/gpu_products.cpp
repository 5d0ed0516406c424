// Products with a 4-bit weight on a GPU, and their gradients.
#include "quant/gpu.hpp"
#include "quant/gpu_ops.hpp"
#include "quant/gpu_weight.hpp"
#include "quant/row_block.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cstdint>

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

std::vector<std::int64_t> resized(const at::Tensor& x, std::int64_t size) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = size;
  return shape;
}

// A weight with a low-rank term, as kernels read it, and the tensors that keep it there.
struct Operand {
  cuda::LinearWeight weight{};
  at::Tensor a, b, matrix;
};

Operand operand_of(const QuantizedTensor& w, const LowRank* term) {
  Operand operand;
  cuda::LinearWeight& weight = operand.weight;
  weight.w = gpu_codes(w);
  weight.w.rows = w.size(0);
  weight.w.columns = w.size(1);
  if (term == nullptr) return operand;
  operand.a = term->a.contiguous();
  operand.b = term->b.contiguous();
  weight.a = read_f32(operand.a);
  weight.b = read_f32(operand.b);
  weight.rank = operand.a.size(0);
  weight.scale = static_cast<float>(term->scale);
  return operand;
}

// Makes the matrix of products of many tokens, unless `made` is one.
void fill(const GpuScope& scope, Operand& operand, const at::Tensor& like, const at::Tensor& made) {
  cuda::LinearWeight& weight = operand.weight;
  operand.matrix = made.defined() ? made : new_halves(like, {weight.matrix_size()});
  weight.matrix = write(operand.matrix);
  if (made.defined()) return;
  scope.check(scope.kernels().fill_matrix(weight, scope.stream()), "fill_matrix", weight.w.rows,
              " rows of ", weight.w.columns, ", rank ", weight.rank);
}

at::Tensor product_space(const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(cuda::kProductSpaceBytes)},
                   like.options().dtype(at::kByte));
}

// y of few tokens, with the codes as they are; u in float32.
PackedForward few_tokens(const GpuScope& scope,
                         const Operand& operand,
                         const at::Tensor& x,
                         const at::Tensor& input,
                         const std::optional<at::Tensor>& bias) {
  const cuda::LinearWeight& weight = operand.weight;
  const std::int64_t tokens = x.size(0);
  at::Tensor u, wide_bias;
  if (weight.a != nullptr) {
    u = at::empty({tokens, weight.rank}, x.options().dtype(at::kFloat));
    scope.check(
        scope.kernels().low_rank_rows({read(input), tokens, weight.w.columns, weight.a, weight.rank,
                                       weight.scale, u.mutable_data_ptr<float>()},
                                      scope.stream()),
        "low_rank_rows", tokens, " rows of ", weight.w.columns, ", rank ", weight.rank);
  }
  if (bias) wide_bias = bias->to(at::kBFloat16).to(at::kFloat).contiguous();
  const at::Tensor y = new_halves(x, {tokens, weight.w.rows});
  scope.check(scope.kernels().small_product({.x = read(x),
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
                                             .bias = bias ? read_f32(wide_bias) : nullptr,
                                             .u = u.defined() ? read_f32(u) : nullptr,
                                             .b = weight.b,
                                             .rank = weight.rank,
                                             .y = write(y)},
                                            scope.stream()),
              "small_product", tokens, " rows of ", weight.w.columns, " times ", weight.w.rows,
              " in blocks of ", weight.w.blocksize);
  return {y, u};
}

// y of many tokens, of a filled matrix; u in bfloat16, [tokens, R].
PackedForward many_tokens(const GpuScope& scope,
                          const Operand& operand,
                          const at::Tensor& x,
                          const at::Tensor& input,
                          const std::optional<at::Tensor>& bias,
                          bool keeps_u) {
  const cuda::LinearWeight& weight = operand.weight;
  const std::int64_t tokens = x.size(0), rows = weight.w.rows, columns = weight.w.columns,
                     padding = weight.padding();
  const bool joins = weight.a != nullptr && cuda::low_rank_joins(columns, rows);
  at::Tensor x_and_u, u, narrow_bias;
  if (joins) {
    x_and_u = new_halves(x, {tokens, weight.stride()});
  } else if (weight.a != nullptr) {
    u = new_halves(x, {tokens, padding});
  }
  if (bias) {
    narrow_bias = bias->to(at::kBFloat16).contiguous();
    if (!aligned(narrow_bias)) narrow_bias = narrow_bias.clone();
  }
  const at::Tensor y = new_halves(x, {tokens, rows}), space = product_space(x);
  scope.check(scope.kernels().linear_forward(
                  scope.products(space), weight,
                  {.x = read(x),
                   .tokens = tokens,
                   .x_stride = columns,
                   .bias = bias ? read(narrow_bias) : nullptr,
                   .input = input.defined() && !input.is_same(x) ? read(input) : nullptr,
                   .x_and_u = joins ? write(x_and_u) : nullptr,
                   .u = u.defined() ? write(u) : nullptr,
                   .y = write(y),
                   .y_stride = rows},
                  scope.stream()),
              "linear_forward", tokens, " rows of ", columns, " times ", rows, ", rank ",
              weight.rank);
  if (joins && keeps_u) u = x_and_u.slice(1, columns).contiguous();
  return {y, u};
}

// u as the gradient of B reads it: bfloat16, [tokens, R].
at::Tensor padded_u(const at::Tensor& u, std::int64_t padding) {
  if (u.scalar_type() == at::kBFloat16) return u;
  const at::Tensor padded = at::zeros({u.size(0), padding}, u.options().dtype(at::kBFloat16));
  padded.slice(1, 0, u.size(1)).copy_(u);
  return padded;
}

}  // namespace

bool gpu_multiplies(const QuantizedTensor& w, at::ScalarType compute_dtype) {
  return compute_dtype == at::kBFloat16 && w.dim() == 2 && w.size(0) % 8 == 0 &&
         w.size(1) % 8 == 0 && on_gpu(w.device());
}

PackedForward gpu_forward(const at::Tensor& x,
                          const QuantizedTensor& w,
                          const std::optional<at::Tensor>& bias,
                          const LowRank* low_rank,
                          at::Tensor* matrix) {
  const GpuScope scope(x.device(), kOp);
  const at::Tensor rows = halves(x);
  at::Tensor input;
  if (low_rank != nullptr) input = low_rank->mask ? halves(low_rank_input(*low_rank, x)) : rows;
  const auto shaped = [&](PackedForward found) -> PackedForward {
    return {found.y.to(x.scalar_type()).reshape(resized(x, w.size(0))), found.u};
  };
  Operand operand = operand_of(w, low_rank);
  const auto kind =
      cuda::choose_product(scope.gpu(), rows.size(0), w.size(0), w.size(1), w.blocksize());
  if (matrix == nullptr && kind == cuda::ProductKind::small && aligned(w.tables().codes)) {
    return shaped(few_tokens(scope, operand, rows, input, bias));
  }
  fill(scope, operand, rows, matrix != nullptr ? *matrix : at::Tensor());
  if (matrix != nullptr) *matrix = operand.matrix;
  const bool keeps_u = low_rank != nullptr && low_rank->b.requires_grad();
  return shaped(many_tokens(scope, operand, rows, input, bias, keeps_u));
}

Gradients gpu_backward(const at::Tensor& dy,
                       const QuantizedTensor& w,
                       const SavedLowRank* low_rank,
                       WantedGradients wanted,
                       const at::Tensor& matrix) {
  const GpuScope scope(dy.device(), kOp);
  const at::Tensor rows = halves(dy);
  const bool masks = low_rank != nullptr && low_rank->term.mask;
  Operand operand = operand_of(w, low_rank != nullptr ? &low_rank->term : nullptr);
  const cuda::LinearWeight& weight = operand.weight;
  fill(scope, operand, rows, matrix);
  const std::int64_t tokens = rows.size(0), out = weight.w.rows, in = weight.w.columns,
                     padding = weight.padding();
  const bool joins = low_rank != nullptr && wanted.x && !masks && cuda::low_rank_joins(out, in);

  at::Tensor dx, dinput, dy_and_v, v, input, u, da, db;
  if (wanted.x) dx = new_halves(rows, {tokens, in});
  if (joins) dy_and_v = new_halves(rows, {tokens, out + padding});
  if (low_rank != nullptr) {
    if (!joins) v = new_halves(rows, {tokens, padding});
    if (masks && wanted.x) dinput = new_halves(rows, {tokens, in});
    const auto f32 = rows.options().dtype(at::kFloat);
    if (wanted.a) {
      input = halves(low_rank_input(low_rank->term, low_rank->x()));
      da = at::empty({padding, in}, f32);
    }
    if (wanted.b) {
      u = padded_u(low_rank->u, padding);
      db = at::empty({out, padding}, f32);
    }
  }
  const at::Tensor space = product_space(rows);
  const auto pointer = [](const at::Tensor& x) { return x.defined() ? write(x) : nullptr; };
  scope.check(
      scope.kernels().linear_backward(scope.products(space), weight,
                                      {.dy = read(rows),
                                       .tokens = tokens,
                                       .dy_stride = out,
                                       .dy_and_v = pointer(dy_and_v),
                                       .v = pointer(v),
                                       .input = input.defined() ? read(input) : nullptr,
                                       .input_stride = in,
                                       .u = u.defined() ? read(u) : nullptr,
                                       .u_stride = padding,
                                       .dx = pointer(dx),
                                       .dx_stride = in,
                                       .dinput = pointer(dinput),
                                       .da = da.defined() ? da.mutable_data_ptr<float>() : nullptr,
                                       .db = db.defined() ? db.mutable_data_ptr<float>() : nullptr},
                                      scope.stream()),
      "linear_backward", tokens, " rows of ", out, " times ", in, ", rank ", weight.rank);
  Gradients gradients;
  if (wanted.x) {
    const std::vector<std::int64_t> shape = resized(dy, in);
    if (dinput.defined()) dx.add_(low_rank->term.mask(dinput.reshape(shape)).reshape({tokens, in}));
    gradients.x = dx.to(dy.scalar_type()).reshape(shape);
  }
  if (da.defined()) gradients.a = da.slice(0, 0, weight.rank);
  if (db.defined()) gradients.b = db.slice(1, 0, weight.rank).contiguous();
  return gradients;
}

}  // namespace lorapp::detail
