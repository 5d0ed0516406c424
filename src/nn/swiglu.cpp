// swiglu: one kernel forward, one for both gradients; the graph keeps the operands and no more.
#include "nn/row_kernels.hpp"

#include "kernels/rows_args.hpp"

#include <lorapp/nn/mlp.hpp>

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>

namespace lorapp {
namespace {

constexpr const char* kOp = "swiglu";

using kernels::cuda::GateRows;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Of gate and up on a GPU that are columns of one product (stacked_linear_4bit): their rows.
std::optional<GateRows> rows_of_product(const at::Tensor& gate, const at::Tensor& up) {
  const bool fits = detail::on_gpu(gate.device()) && gate.dim() == 2 && gate.stride(1) == 1 &&
                    gate.stride(0) >= gate.size(1) && up.strides() == gate.strides();
  if (!fits) return std::nullopt;
  return GateRows{gate.size(1), gate.stride(0), 2 * gate.size(1)};
}

bool are_flat(const at::Tensor& gate, const at::Tensor& up) {
  return gate.is_contiguous() && up.is_contiguous();
}

// f(kernels, first, last) for ranges of elements of operands with no gaps; else, for all of them,
// f(kernels, 0, their number, rows).
template <class F>
void for_ranges(const at::Tensor& gate, const at::Tensor& up, F f) {
  if (are_flat(gate, up)) {
    detail::for_row_ranges(kOp, gate.device(), gate.numel(), 1, f);
  } else {
    const detail::GpuScope scope(gate.device(), kOp);
    f(detail::GpuKernels(scope), std::int64_t{0}, gate.numel(), rows_of_product(gate, up).value());
  }
}

at::Tensor product(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor y = at::empty(gate.sizes(), gate.options());
  for_ranges(gate, up,
             [&](const auto& kernel, std::int64_t first, std::int64_t last, const auto&... rows) {
               kernel.swiglu(
                   {
                       .gate = detail::elements(gate, first),
                       .up = detail::elements(up, first),
                       .type = detail::float_type(gate.scalar_type()),
                       .n = last - first,
                       .y = detail::mutable_elements(y, first),
                   },
                   rows...);
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
    at::Tensor dgate, dup;
    if (are_flat(gate, up)) {
      dgate = detail::gradient_like(gate, grads[0]);
      dup = at::empty_like(up);
    } else {  // next to each other, as the product's gradient reads them
      const at::Tensor both = at::empty({gate.size(0), 2 * gate.size(1)}, gate.options());
      dgate = both.slice(1, 0, gate.size(1));
      dup = both.slice(1, gate.size(1));
    }
    const at::Tensor dy = grads[0].contiguous();
    for_ranges(gate, up,
               [&](const auto& kernel, std::int64_t first, std::int64_t last, const auto&... rows) {
                 kernel.swiglu_backward(
                     {
                         .gate = detail::elements(gate, first),
                         .up = detail::elements(up, first),
                         .dy = detail::elements(dy, first),
                         .type = detail::float_type(gate.scalar_type()),
                         .n = last - first,
                         .dgate = detail::mutable_elements(dgate, first),
                         .dup = detail::mutable_elements(dup, first),
                     },
                     rows...);
               });
    return {dgate, dup};
  }
};

}  // namespace

torch::Tensor swiglu(const torch::Tensor& gate, const torch::Tensor& up) {
  const bool has_kernel = detail::has_row_kernel(gate) && detail::has_row_kernel(up) &&
                          gate.device() == up.device() && gate.scalar_type() == up.scalar_type() &&
                          gate.sizes() == up.sizes() && gate.numel() > 0 &&
                          (are_flat(gate, up) || rows_of_product(gate, up));
  if (!has_kernel) return detail::composed_swiglu(gate, up);
  if (at::GradMode::is_enabled() && (gate.requires_grad() || up.requires_grad())) {
    return SwiGluFn::apply(gate, up);
  }
  return product(gate, up);
}

}  // namespace lorapp
