// linear_int8: a linear layer with a weight in 8 bits, by the products of dense ones.
#include <lorapp/error.hpp>
#include <lorapp/quant/int8_weight.hpp>

#include "quant/checks.hpp"
#include "quant/products.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace lorapp {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kOp = "linear_int8";

// `codes` and `absmax` must outlive it.
kernels::DenseMatrix int8_matrix(const at::Tensor& codes, const at::Tensor& absmax) {
  return {.data = codes.const_data_ptr(),
          .type = kernels::Float::f32,
          .rows = codes.size(0),
          .columns = codes.size(1),
          .stride = codes.stride(0),
          .absmax = absmax.const_data_ptr<float>()};
}

class Int8LinearFn : public torch::autograd::Function<Int8LinearFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& codes,
                            const at::Tensor& absmax,
                            const std::optional<at::Tensor>& bias) {
    context->saved_data["bias"] = bias.has_value();
    context->save_for_backward({codes, absmax});
    at::AutoDispatchBelowADInplaceOrView below;
    return detail::dense_forward(x, int8_matrix(codes, absmax), bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor& dy = grads[0];
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    at::NoGradGuard no_grad;
    at::Tensor dx, dbias;
    if (context->needs_input_grad(0)) {
      dx = detail::dense_backward(dy, int8_matrix(saved[0], saved[1]));
    }
    if (context->saved_data["bias"].toBool() && context->needs_input_grad(3)) {
      dbias = detail::bias_gradient(dy, at::kFloat);
    }
    return {dx, {}, {}, dbias};
  }
};

void check_operands(const at::Tensor& x,
                    const Int8Weight& w,
                    const std::optional<at::Tensor>& bias) {
  LORAPP_CHECK(w.codes.defined() && w.codes.dim() == 2 && w.codes.scalar_type() == at::kChar &&
                   w.numel() > 0 && w.codes.stride(1) == 1,
               kOp, "the weight has no codes [out, in] of type int8 with contiguous rows");
  LORAPP_CHECK(w.absmax.defined() && w.absmax.scalar_type() == at::kFloat &&
                   w.absmax.sizes() == at::IntArrayRef{w.codes.size(0)} &&
                   w.absmax.is_contiguous() && w.absmax.device() == w.codes.device(),
               kOp, "the weight has no absmax [", w.codes.size(0),
               "] of type float32 beside codes ", w.sizes());
  LORAPP_CHECK(x.defined() && detail::is_compute_dtype(x.scalar_type()), kOp, "x is ",
               x.defined() ? x.scalar_type() : at::ScalarType::Undefined,
               ", expected float32, bfloat16, float16 or float64");
  LORAPP_CHECK(x.dim() >= 1 && x.size(-1) == w.codes.size(1), kOp, "x has the shape ", x.sizes(),
               ", expected a last dimension of ", w.codes.size(1));
  LORAPP_CHECK(x.device() == w.codes.device(), kOp, "x is on ", x.device(), ", the weight on ",
               w.codes.device());
  LORAPP_CHECK(!bias || (bias->defined() && bias->sizes() == at::IntArrayRef{w.codes.size(0)} &&
                         bias->device() == x.device()),
               kOp, "the bias does not have the shape [", w.codes.size(0), "] on ", x.device());
}

}  // namespace

torch::Tensor linear_int8(const torch::Tensor& x,
                          const Int8Weight& w,
                          const std::optional<torch::Tensor>& bias) {
  check_operands(x, w, bias);
  if (x.is_cpu()) return Int8LinearFn::apply(x, w.codes, w.absmax, bias);
  std::optional<torch::Tensor> cast;
  if (bias) cast = bias->to(x.scalar_type());
  return at::linear(x, dequantize_int8(w, x.scalar_type()), cast);
}

}  // namespace lorapp
