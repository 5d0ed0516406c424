// linear_int8: a linear layer with a weight in 8 bits, by the products of dense ones.
#include <lorapp/error.hpp>
#include <lorapp/quant/int8_weight.hpp>

#include "quant/checks.hpp"
#include "quant/products.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

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

// Calls f(first, last, weight) for ranges of rows of W, dense in `dtype`, 64 MiB of float32 at a
// time: how a device without kernels for codes multiplies with them.
template <class F>
void for_dense_rows(const at::Tensor& codes, const at::Tensor& absmax, at::ScalarType dtype, F f) {
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 24;
  const std::int64_t rows = codes.size(0);
  const std::int64_t step = std::max<std::int64_t>(1, kMaxElements / codes.size(1));
  for (std::int64_t first = 0; first < rows; first += step) {
    const std::int64_t last = std::min(rows, first + step);
    const Int8Weight part{codes.slice(0, first, last), absmax.slice(0, first, last)};
    f(first, last, dequantize_int8(part, dtype));
  }
}

at::Tensor composed_forward(const at::Tensor& x,
                            const at::Tensor& codes,
                            const at::Tensor& absmax,
                            const std::optional<at::Tensor>& bias) {
  std::vector<at::Tensor> parts;
  for_dense_rows(codes, absmax, x.scalar_type(),
                 [&](std::int64_t first, std::int64_t last, const at::Tensor& weight) {
                   std::optional<at::Tensor> own;
                   if (bias) own = bias->slice(0, first, last).to(x.scalar_type());
                   parts.push_back(at::linear(x, weight, own));
                 });
  return parts.size() == 1 ? parts.front() : at::cat(parts, -1);
}

at::Tensor composed_backward(const at::Tensor& dy,
                             const at::Tensor& codes,
                             const at::Tensor& absmax) {
  at::Tensor dx;  // of several parts the sum is in float32
  for_dense_rows(codes, absmax, dy.scalar_type(),
                 [&](std::int64_t first, std::int64_t last, const at::Tensor& weight) {
                   const at::Tensor part = at::matmul(dy.slice(-1, first, last), weight);
                   if (!dx.defined()) {
                     dx = last == codes.size(0)
                              ? part
                              : part.to(at::promoteTypes(part.scalar_type(), at::kFloat));
                   } else {
                     dx.add_(part);
                   }
                 });
  return dx.to(dy.scalar_type());
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
    if (!x.is_cpu()) return composed_forward(x, codes, absmax, bias);
    return detail::dense_forward(x, int8_matrix(codes, absmax), bias);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor& dy = grads[0];
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    at::NoGradGuard no_grad;
    at::Tensor dx, dbias;
    if (context->needs_input_grad(0)) {
      dx = dy.is_cpu() ? detail::dense_backward(dy, int8_matrix(saved[0], saved[1]))
                       : composed_backward(dy, saved[0], saved[1]);
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
  return Int8LinearFn::apply(x, w.codes, w.absmax, bias);
}

}  // namespace lorapp
