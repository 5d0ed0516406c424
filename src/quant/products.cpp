// Blocks of rows are packed once and multiplied with all that they meet.
#include "quant/products.hpp"

#include "quant/checks.hpp"
#include "quant/float_type.hpp"
#include "quant/packed_codes.hpp"
#include "quant/row_block.hpp"

#include <lorapp/error.hpp>

#include <ATen/ATen.h>

#include <utility>

namespace lorapp::detail {
namespace {

constexpr auto kF32 = kernels::Float::f32;

kernels::PackedWeight view_of(const QuantizedTensor& weight) {
  return weight.packed_codes()->view(weight.tables());
}

// Calls f(begin, end) for blocks of rows of about the same size.
template <class F>
void for_each_row_block(std::int64_t rows, F&& f) {
  const std::int64_t blocks = (rows + kRowBlock - 1) / kRowBlock;
  for (std::int64_t i = 0; i < blocks; ++i) f(rows * i / blocks, rows * (i + 1) / blocks);
}

}  // namespace

std::vector<std::int64_t> resized(const at::Tensor& x, std::int64_t size) {
  std::vector<std::int64_t> shape = x.sizes().vec();
  shape.back() = size;
  return shape;
}

at::Tensor bias_gradient(const at::Tensor& dy, at::ScalarType dtype) {
  const at::ScalarType sum_dtype = at::promoteTypes(at::kFloat, dy.scalar_type());
  return dy.reshape({-1, dy.size(-1)}).sum(at::IntArrayRef{0}, false, sum_dtype).to(dtype);
}

at::Tensor outer_product(const at::Tensor& left, const at::Tensor& right) {
  const at::Tensor rows = left.t().contiguous();
  const at::Tensor y = at::empty({rows.size(0), right.size(1)}, at::kFloat);
  if (left.size(0) == 0) return y.zero_();
  const kernels::DenseMatrix matrix = dense_matrix(right);
  for_each_row_block(rows.size(0), [&](std::int64_t begin, std::int64_t end) {
    RowBlock(rows.slice(0, begin, end), rows.size(1), kF32)
        .multiply({.dense = &matrix}, /*transposed=*/true, y.slice(0, begin, end));
  });
  return y;
}

at::Tensor dense_forward(const at::Tensor& x,
                         const kernels::DenseMatrix& w,
                         const std::optional<at::Tensor>& bias) {
  const at::Tensor rows = matrix_rows(x);
  at::Tensor wide_bias;
  if (bias) wide_bias = bias->to(at::kFloat).contiguous();
  const float* b = bias ? wide_bias.const_data_ptr<float>() : nullptr;
  const std::vector<std::int64_t> shape = resized(x, w.rows);
  if (rows.size(0) > 0 && rows.size(0) <= kernels::kMaxVectorRows) {
    const at::Tensor y = vector_product(rows, {.dense = &w}, b, x.scalar_type());
    return y.to(x.scalar_type()).reshape(shape);
  }
  const at::Tensor y = at::empty({rows.size(0), w.rows}, rows.options());
  for_each_row_block(rows.size(0), [&](std::int64_t begin, std::int64_t end) {
    RowBlock(rows.slice(0, begin, end), w.columns, float_type(rows.scalar_type()))
        .multiply({.dense = &w}, /*transposed=*/false, y.slice(0, begin, end), b);
  });
  return y.to(x.scalar_type()).reshape(shape);
}

at::Tensor dense_backward(const at::Tensor& dy, const kernels::DenseMatrix& w) {
  const at::Tensor rows = matrix_rows(dy);
  const at::Tensor dx = at::empty({rows.size(0), w.columns}, rows.options());
  for_each_row_block(rows.size(0), [&](std::int64_t begin, std::int64_t end) {
    RowBlock(rows.slice(0, begin, end), w.rows, float_type(rows.scalar_type()))
        .multiply({.dense = &w}, /*transposed=*/true, dx.slice(0, begin, end));
  });
  return dx.to(dy.scalar_type()).reshape(resized(dy, w.columns));
}

at::Tensor low_rank_input(const LowRank& term, const at::Tensor& x) {
  if (!term.mask) return matrix_rows(x);
  const at::Tensor masked = term.mask(x);
  LORAPP_CHECK(masked.sizes() == x.sizes() && is_compute_dtype(masked.scalar_type()) &&
                   masked.device() == x.device(),
               "linear_4bit", "the mask of the low-rank term gave ", masked.scalar_type(), " ",
               masked.sizes(), " on ", masked.device(), "; expected a floating type, ", x.sizes(),
               " on ", x.device());
  return matrix_rows(masked);
}

PackedForward packed_forward(const at::Tensor& x,
                             const QuantizedTensor& weight,
                             const std::optional<at::Tensor>& bias,
                             at::ScalarType compute_dtype,
                             const LowRank* low_rank) {
  const kernels::PackedWeight w = view_of(weight);
  const at::Tensor rows = matrix_rows(x);
  const std::int64_t count = rows.size(0);
  at::Tensor wide_bias;
  if (bias) wide_bias = bias->to(compute_dtype).to(at::kFloat).contiguous();
  const float* b = bias ? wide_bias.const_data_ptr<float>() : nullptr;

  const bool masks = low_rank != nullptr && low_rank->mask;
  at::Tensor input, lora_a, lora_b, u;
  if (low_rank != nullptr) {
    input = masks ? low_rank_input(*low_rank, x) : rows;
    lora_a = low_rank->a.contiguous();
    lora_b = low_rank->b;
    u = at::empty({count, lora_a.size(0)}, at::kFloat);
  }
  const auto shaped = [&](const at::Tensor& y) {
    return y.to(x.scalar_type()).reshape(resized(x, w.rows));
  };

  if (count > 0 && count <= kernels::kMaxVectorRows) {
    at::Tensor y = vector_product(rows, {.packed = &w}, b, compute_dtype);
    if (low_rank != nullptr) {
      u = at::linear(input.to(at::kFloat), lora_a).mul_(low_rank->scale);
      y.addmm_(u, lora_b.t());
    }
    return {shaped(y.to(compute_dtype)), u};
  }
  const at::Tensor y = at::empty({count, w.rows}, rows.options());
  for_each_row_block(count, [&](std::int64_t begin, std::int64_t end) {
    const at::Tensor part = rows.slice(0, begin, end);
    const RowBlock block(part, w.columns, float_type(compute_dtype));
    const at::Tensor y_part = y.slice(0, begin, end);
    if (low_rank == nullptr) return block.multiply({.packed = &w}, false, y_part, b);
    const at::Tensor u_part = u.slice(0, begin, end);
    const kernels::DenseMatrix a = dense_matrix(lora_a);
    const RowBlock input_block =
        masks ? RowBlock(input.slice(0, begin, end), w.columns, kF32) : block.as_f32(part);
    input_block.multiply({.dense = &a}, false, u_part);
    u_part.mul_(low_rank->scale);
    const RowBlock u_block(u_part, u_part.size(1), kF32);
    const RowBlock::LowRankTerm term{u_block, lora_b.t()};
    block.multiply({.packed = &w}, false, y_part, b, &term);
  });
  return {shaped(y), u};
}

Gradients packed_backward(const at::Tensor& dy,
                          const QuantizedTensor& weight,
                          at::ScalarType compute_dtype,
                          const SavedLowRank* low_rank,
                          WantedGradients wanted) {
  const kernels::PackedWeight w = view_of(weight);
  const at::Tensor rows = matrix_rows(dy);
  const std::int64_t count = rows.size(0);
  const std::int64_t depth = kernels::panels_of(w.rows) * kernels::kPanelRows;
  Gradients gradients;
  at::Tensor dx, dmasked, du, lora_a, lora_b;  // dmasked: of what A has read, where it is not x
  if (wanted.x) dx = at::empty({count, w.columns}, rows.options());
  const bool masks = low_rank != nullptr && low_rank->term.mask;
  if (low_rank != nullptr) {
    lora_a = low_rank->term.a.contiguous();
    lora_b = low_rank->term.b.contiguous();
    du = at::empty({count, lora_a.size(0)}, at::kFloat);
    if (masks && wanted.x) dmasked = at::empty({count, w.columns}, at::kFloat);
  }
  for_each_row_block(count, [&](std::int64_t begin, std::int64_t end) {
    const at::Tensor part = rows.slice(0, begin, end);
    const RowBlock block(part, depth, float_type(compute_dtype));
    std::optional<RowBlock> du_block;
    if (low_rank != nullptr) {
      const kernels::DenseMatrix b = dense_matrix(lora_b);
      const at::Tensor du_part = du.slice(0, begin, end);
      block.as_f32(part).multiply({.dense = &b}, true, du_part);
      du_part.mul_(low_rank->term.scale);
      du_block.emplace(du_part, du_part.size(1), kF32);
    }
    if (wanted.x) {
      const at::Tensor dx_part = dx.slice(0, begin, end);
      std::optional<RowBlock::LowRankTerm> term;
      if (low_rank != nullptr && !masks) term.emplace(RowBlock::LowRankTerm{*du_block, lora_a});
      block.multiply({.packed = &w}, true, dx_part, nullptr, term ? &*term : nullptr);
    }
    if (dmasked.defined()) {
      const kernels::DenseMatrix a = dense_matrix(lora_a);
      du_block->multiply({.dense = &a}, true, dmasked.slice(0, begin, end));
    }
  });
  if (wanted.x) {
    const std::vector<std::int64_t> shape = resized(dy, w.columns);
    gradients.x = dx.to(dy.scalar_type()).reshape(shape);
    if (dmasked.defined()) {
      const at::Tensor through = low_rank->term.mask(std::exchange(dmasked, {}).reshape(shape));
      gradients.x.add_(through.to(dy.scalar_type()));
    }
  }
  if (low_rank == nullptr) return gradients;
  if (wanted.a) gradients.a = outer_product(du, low_rank_input(low_rank->term, low_rank->x()));
  if (wanted.b) gradients.b = outer_product(low_rank->u, rows).t().contiguous();
  return gradients;
}

}  // namespace lorapp::detail
