// rms_norm: one kernel forward, one backward; the graph keeps a factor a row beside x.
#include "nn/row_kernels.hpp"

#include "kernels/rows_args.hpp"
#include "kernels/tile_map.hpp"

#include <lorapp/nn/rms_norm.hpp>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace lorapp {
namespace {

constexpr const char* kOp = "rms_norm";
// Rows whose part of the weight's gradient is summed in order, so that it does not depend on the
// threads.
constexpr std::int64_t kBlock = 64;

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

std::int64_t rows_of(const at::Tensor& x) { return x.numel() / x.size(-1); }

// `scale` [rows] float32, or undefined.
at::Tensor normalize(const at::Tensor& x,
                     const at::Tensor& weight,
                     double eps,
                     const at::Tensor& scale) {
  const at::Tensor y = at::empty_like(x);
  const std::int64_t size = x.size(-1);
  float* factors = scale.defined() ? scale.mutable_data_ptr<float>() : nullptr;
  detail::for_row_ranges(kOp, x.device(), rows_of(x), size,
                         [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                           kernel.rms_norm({
                               .x = detail::elements(x, first * size),
                               .type = detail::float_type(x.scalar_type()),
                               .rows = last - first,
                               .size = size,
                               .weight = weight.const_data_ptr(),
                               .eps = static_cast<float>(eps),
                               .y = detail::mutable_elements(y, first * size),
                               .scale = factors != nullptr ? factors + first : nullptr,
                           });
                         });
  return y;
}

class RmsNormFn : public torch::autograd::Function<RmsNormFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            double eps) {
    at::AutoDispatchBelowADInplaceOrView below;
    const at::Tensor scale = at::empty({rows_of(x)}, x.options().dtype(at::kFloat));
    context->save_for_backward({x, weight, scale});
    return normalize(x, weight, eps, scale);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1], &scale = saved[2];
    const std::int64_t rows = rows_of(x), size = x.size(-1);
    // A GPU's kernel has an order of its own.
    const std::int64_t block_rows = detail::on_gpu(x.device()) ? rows : kBlock;
    const std::int64_t blocks = (rows + block_rows - 1) / block_rows;
    at::Tensor dx, sums, scratch;
    // Not with the weight's gradient, which reads dy once more.
    if (context->needs_input_grad(0)) {
      dx = context->needs_input_grad(1) ? at::empty_like(x) : detail::gradient_like(x, grads[0]);
    }
    const at::Tensor dy = grads[0].contiguous();
    if (context->needs_input_grad(1)) {
      sums = at::zeros({blocks, size}, scale.options());
      if (detail::on_gpu(x.device())) {
        scratch = at::empty({kernels::ColumnSumMap{rows, size}.scratch()}, scale.options());
      }
    }
    const auto run = [&](const auto& kernel, std::int64_t first, std::int64_t last,
                         float* dweight) {
      kernel.rms_norm_backward({
          .x = detail::elements(x, first * size),
          .type = detail::float_type(x.scalar_type()),
          .rows = last - first,
          .size = size,
          .weight = weight.const_data_ptr(),
          .scale = scale.const_data_ptr<float>() + first,
          .dy = detail::elements(dy, first * size),
          .dx = dx.defined() ? detail::mutable_elements(dx, first * size) : nullptr,
          .dweight = dweight,
          .scratch = scratch.defined() ? scratch.mutable_data_ptr<float>() : nullptr,
      });
    };
    if (!sums.defined()) {
      detail::for_row_ranges(kOp, x.device(), rows, size,
                             [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                               run(kernel, first, last, nullptr);
                             });
      return {dx, at::Tensor(), at::Tensor()};
    }
    detail::for_row_ranges(kOp, x.device(), blocks, block_rows * size,
                           [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                             for (std::int64_t block = first; block < last; ++block) {
                               run(kernel, block * block_rows,
                                   std::min(rows, (block + 1) * block_rows),
                                   sums.mutable_data_ptr<float>() + block * size);
                             }
                           });
    return {dx, sums.sum(at::IntArrayRef{0}).to(weight.scalar_type()), at::Tensor()};
  }
};

bool has_kernel(const at::Tensor& x, const at::Tensor& weight) {
  return detail::has_row_kernel(x) && detail::has_row_kernel(weight) &&
         weight.device() == x.device() && weight.scalar_type() == x.scalar_type() &&
         weight.dim() == 1 && x.dim() > 0 && x.size(-1) == weight.size(0) && x.numel() > 0 &&
         x.is_contiguous() && weight.is_contiguous();
}

}  // namespace

torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps) {
  if (!has_kernel(x, weight)) return detail::composed_rms_norm(x, weight, eps);
  if (at::GradMode::is_enabled() && (x.requires_grad() || weight.requires_grad())) {
    return RmsNormFn::apply(x, weight, eps);
  }
  return normalize(x, weight, eps, {});
}

}  // namespace lorapp
