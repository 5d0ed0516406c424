// linear_dense: a dense linear layer by the products of 4-bit ones.
#include <lorapp/quant/ops.hpp>

#include "quant/float_type.hpp"
#include "quant/products.hpp"
#include "quant/row_block.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace lorapp {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// True where the kernels apply: all of one 16- or 32-bit type, on the CPU, rows contiguous.
bool kernels_apply(const at::Tensor& x,
                   const at::Tensor& weight,
                   const std::optional<at::Tensor>& bias) {
  return x.is_cpu() && weight.is_cpu() && weight.dim() == 2 && weight.stride(1) == 1 &&
         weight.numel() > 0 && x.dim() >= 1 && x.size(-1) == weight.size(1) &&
         detail::has_float_type(x.scalar_type()) && x.scalar_type() == weight.scalar_type() &&
         (!bias || (bias->is_cpu() && bias->dim() == 1 && bias->size(0) == weight.size(0) &&
                    bias->scalar_type() == x.scalar_type()));
}

class DenseLinearFn : public torch::autograd::Function<DenseLinearFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias) {
    context->saved_data["bias"] = bias.has_value();
    // x is needed for the gradient of the weight alone.
    context->save_for_backward({weight.requires_grad() ? x : at::Tensor(), weight});
    at::AutoDispatchBelowADInplaceOrView below;
    return detail::dense_forward(x, detail::dense_matrix(weight), bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor& dy = grads[0];
    detail::refuse_second_derivatives("linear_dense");
    const variable_list saved = context->get_saved_variables();
    const at::Tensor& weight = saved[1];
    at::NoGradGuard no_grad;
    at::Tensor dx, dweight, dbias;
    if (context->needs_input_grad(0)) {
      dx = detail::dense_backward(dy, detail::dense_matrix(weight));
    }
    if (context->needs_input_grad(1)) {
      const at::Tensor x = saved[0].reshape({-1, saved[0].size(-1)});
      const at::Tensor rows = dy.reshape({-1, dy.size(-1)});
      dweight = detail::outer_product(rows, x.contiguous()).to(weight.scalar_type());
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(2)) {
      dbias = detail::bias_gradient(dy, dy.scalar_type());
    }
    return {dx, dweight, dbias};
  }
};

}  // namespace

torch::Tensor linear_dense(const torch::Tensor& x,
                           const torch::Tensor& weight,
                           const std::optional<torch::Tensor>& bias) {
  if (!kernels_apply(x, weight, bias)) return at::linear(x, weight, bias);
  return DenseLinearFn::apply(x, weight, bias);
}

}  // namespace lorapp
