// swiglu: one kernel forward, one for both gradients; the graph keeps the operands and no more.
#include "nn/row_kernels.hpp"

#include "kernels/rows_args.hpp"

#include <lorapp/nn/mlp.hpp>

#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace lorapp {
namespace {

constexpr const char* kOp = "swiglu";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor product(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor y = at::empty_like(gate);
  detail::for_row_ranges(kOp, gate.device(), gate.numel(), 1,
                         [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                           kernel.swiglu({
                               .gate = detail::elements(gate, first),
                               .up = detail::elements(up, first),
                               .type = detail::float_type(gate.scalar_type()),
                               .n = last - first,
                               .y = detail::mutable_elements(y, first),
                           });
                         });
  return y;
}

class SwiGluFn : public torch::autograd::Function<SwiGluFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& gate,
                            const at::Tensor& up) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({gate, up});
    return product(gate, up);
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &gate = saved[0], &up = saved[1];
    const at::Tensor dgate = detail::gradient_like(gate, grads[0]), dup = at::empty_like(up);
    const at::Tensor dy = grads[0].contiguous();
    detail::for_row_ranges(kOp, gate.device(), gate.numel(), 1,
                           [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                             kernel.swiglu_backward({
                                 .gate = detail::elements(gate, first),
                                 .up = detail::elements(up, first),
                                 .dy = detail::elements(dy, first),
                                 .type = detail::float_type(gate.scalar_type()),
                                 .n = last - first,
                                 .dgate = detail::mutable_elements(dgate, first),
                                 .dup = detail::mutable_elements(dup, first),
                             });
                           });
    return {dgate, dup};
  }
};

}  // namespace

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  const bool has_kernel = detail::has_row_kernel(gate) && detail::has_row_kernel(up) &&
                          gate.device() == up.device() && gate.scalar_type() == up.scalar_type() &&
                          gate.sizes() == up.sizes() && gate.numel() > 0 && gate.is_contiguous() &&
                          up.is_contiguous();
  if (!has_kernel) return detail::composed_swiglu(gate, up);
  if (at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad())) {
    return SwiGluFn::apply(gate, up);
  }
  return product(gate, up);
}

}  // namespace lorapp
