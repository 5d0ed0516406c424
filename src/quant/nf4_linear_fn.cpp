// linear_4bit: the product with a 4-bit weight, and its gradient.
// The graph keeps a handle to the weight as it was given; nothing else of it outlives a call.
#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>

#include "quant/checks.hpp"
#include "quant/packed_product.hpp"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>

namespace lorapp {
namespace {

constexpr const char* kOp = "linear_4bit";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// What backward needs, as one opaque value of the autograd context.
struct Saved : torch::CustomClassHolder {
  QuantizedTensor weight;
  at::ScalarType compute_dtype = at::kFloat;
  std::optional<at::ScalarType> bias_dtype;  // none: no bias
};

// The weight as the kernels read it, packed for this call if it is not; nothing where they do not
// apply: the weight cannot be packed, or the product is asked for in float64.
std::optional<QuantizedTensor> packed_for(const QuantizedTensor& weight,
                                          at::ScalarType compute_dtype) {
  if (compute_dtype == at::kDouble) return std::nullopt;
  QuantizedTensor packed = weight.packed();
  return packed.is_packed() ? std::optional(std::move(packed)) : std::nullopt;
}

class Nf4LinearFn : public torch::autograd::Function<Nf4LinearFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const std::optional<at::Tensor>& bias,
                            const QuantizedTensor& weight,
                            at::ScalarType compute_dtype) {
    auto saved = c10::make_intrusive<Saved>();
    saved->weight = weight;
    saved->compute_dtype = compute_dtype;
    if (bias) saved->bias_dtype = bias->scalar_type();
    context->saved_data["saved"] = c10::IValue::make_capsule(saved);

    at::AutoDispatchBelowADInplaceOrView below;
    if (const auto packed = packed_for(weight, compute_dtype)) {
      return detail::packed_product(x, *packed, /*transposed=*/false, bias, compute_dtype);
    }
    const at::Tensor dense = dequantize_4bit(weight, compute_dtype);
    std::optional<at::Tensor> b;
    if (bias) b = bias->to(compute_dtype);
    return at::linear(x.to(compute_dtype), dense, b).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    const at::Tensor& dy = grads[0];
    LORAPP_CHECK(!dy.requires_grad(), kOp,
                 "second derivatives are not supported: the gradient of a 4-bit linear was itself "
                 "asked to be differentiable (create_graph)");
    const auto holder = context->saved_data["saved"].toCapsule();
    const auto& saved = static_cast<const Saved&>(*holder);
    at::NoGradGuard no_grad;
    at::Tensor dx, dbias;
    if (context->needs_input_grad(0)) {
      if (const auto packed = packed_for(saved.weight, saved.compute_dtype)) {
        dx = detail::packed_product(dy, *packed, /*transposed=*/true, {}, saved.compute_dtype);
      } else {
        const at::Tensor dense = dequantize_4bit(saved.weight, saved.compute_dtype);
        dx = at::matmul(dy.to(saved.compute_dtype), dense).to(dy.scalar_type());
      }
    }
    // The context counts only the tensors that were given.
    if (saved.bias_dtype && context->needs_input_grad(1)) {
      // Summed in at least f32, whatever dy is stored in.
      const at::ScalarType sum_dtype = at::promoteTypes(at::kFloat, dy.scalar_type());
      dbias = dy.reshape({-1, dy.size(-1)}).sum(at::IntArrayRef{0}, false, sum_dtype);
      dbias = dbias.to(*saved.bias_dtype);
    }
    return {dx, dbias, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

torch::Tensor linear_4bit(const torch::Tensor& x,
                          const QuantizedTensor& w,
                          const std::optional<torch::Tensor>& bias,
                          std::optional<torch::Dtype> compute_dtype) {
  LORAPP_CHECK(x.defined(), kOp, "x is an undefined tensor");
  LORAPP_CHECK(w.defined(), kOp, "the weight is empty");
  LORAPP_CHECK(w.dim() == 2, kOp, "the weight has shape ", at::IntArrayRef(w.shape()),
               ", expected [out_features, in_features]");
  LORAPP_CHECK(detail::is_compute_dtype(x.scalar_type()), kOp, "x is ", x.scalar_type(),
               ", expected float32, bfloat16, float16 or float64");
  LORAPP_CHECK(x.dim() >= 1 && x.size(-1) == w.size(1), kOp, "x has shape ", x.sizes(),
               ", expected [..., ", w.size(1), "] for a weight of shape ",
               at::IntArrayRef(w.shape()));
  LORAPP_CHECK(x.device() == w.device(), kOp, "x is on ", x.device(), ", the weight on ",
               w.device());
  const bool has_bias = bias && bias->defined();
  if (has_bias) {
    LORAPP_CHECK(bias->dim() == 1 && bias->size(0) == w.size(0), kOp, "bias has shape ",
                 bias->sizes(), ", expected [", w.size(0), "]");
    LORAPP_CHECK(detail::is_compute_dtype(bias->scalar_type()), kOp, "bias is ",
                 bias->scalar_type(), ", expected float32, bfloat16, float16 or float64");
    LORAPP_CHECK(bias->device() == x.device(), kOp, "bias is on ", bias->device(), ", x on ",
                 x.device());
  }
  return Nf4LinearFn::apply(x, has_bias ? bias : std::nullopt, w,
                            resolve_compute_dtype(compute_dtype, x.device()));
}

}  // namespace lorapp
