// rotate: one kernel forward, and backward by the negative angle.
#include "nn/row_kernels.hpp"

#include "kernels/rows_args.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/rotary.hpp>

#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>

namespace lorapp {
namespace {

constexpr const char* kOp = "rotate";

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Into y, whose last dimension has no gaps; it may be x.
at::Tensor turn(const at::Tensor& x,
                const at::Tensor& cos,
                const at::Tensor& sin,
                bool back,
                const at::Tensor& y) {
  const std::int64_t heads = x.size(1), size = x.size(2);
  detail::for_row_ranges(kOp, x.device(), x.size(0), heads * size,
                         [&](const auto& kernel, std::int64_t first, std::int64_t last) {
                           kernel.rotate({
                               .x = detail::elements(x, first * x.stride(0)),
                               .type = detail::float_type(x.scalar_type()),
                               .tokens = last - first,
                               .heads = heads,
                               .size = size,
                               .token_stride = x.stride(0),
                               .head_stride = x.stride(1),
                               .cos = detail::elements(cos, first * (size / 2)),
                               .sin = detail::elements(sin, first * (size / 2)),
                               .back = back,
                               .y = detail::mutable_elements(y, first * y.stride(0)),
                               .y_token_stride = y.stride(0),
                               .y_head_stride = y.stride(1),
                           });
                         });
  return y;
}

class RotateFn : public torch::autograd::Function<RotateFn> {
 public:
  static at::Tensor forward(AutogradContext* context,
                            const at::Tensor& x,
                            const at::Tensor& cos,
                            const at::Tensor& sin) {
    at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({cos, sin});
    return turn(x, cos, sin, /*back=*/false, at::empty(x.sizes(), x.options()));
  }

  static variable_list backward(AutogradContext* context, const variable_list& grads) {
    detail::refuse_second_derivatives(kOp);
    const variable_list saved = context->get_saved_variables();
    const at::Tensor dx = detail::gradient_like(grads[0], grads[0]);
    const at::Tensor dy = grads[0].stride(2) == 1 ? grads[0] : grads[0].contiguous();
    return {turn(dy, saved[0], saved[1], /*back=*/true, dx), at::Tensor(), at::Tensor()};
  }
};

bool has_kernel(const at::Tensor& x, const Rotation& rotation) {
  const auto fits = [&](const at::Tensor& angles) {
    return angles.device() == x.device() && angles.scalar_type() == x.scalar_type() &&
           angles.is_contiguous() &&
           angles.sizes() == at::IntArrayRef({x.size(0), 1, x.size(2) / 2}) &&
           !angles.requires_grad();
  };
  return detail::has_row_kernel(x) && x.dim() == 3 && x.size(2) % 2 == 0 && x.numel() > 0 &&
         x.stride(2) == 1 && fits(rotation.cos) && fits(rotation.sin);
}

}  // namespace

torch::Tensor rotate(const torch::Tensor& x, const Rotation& rotation) {
  if (!has_kernel(x, rotation)) return detail::composed_rotate(x, rotation);
  if (at::GradMode::is_enabled() && x.requires_grad()) {
    return RotateFn::apply(x, rotation.cos, rotation.sin);
  }
  return turn(x, rotation.cos, rotation.sin, /*back=*/false, at::empty(x.sizes(), x.options()));
}

void rotate_into(const torch::Tensor& out, const torch::Tensor& x, const Rotation& rotation) {
  LORAPP_CHECK(out.sizes() == x.sizes() && out.scalar_type() == x.scalar_type(), kOp,
               "the result goes into ", out.sizes(), " of ", out.scalar_type(), "; expected ",
               x.sizes(), " of ", x.scalar_type());
  const torch::NoGradGuard no_grad;
  if (has_kernel(x, rotation) && out.device() == x.device() && out.stride(2) == 1) {
    turn(x, rotation.cos, rotation.sin, /*back=*/false, out);
  } else {
    out.copy_(detail::composed_rotate(x, rotation));
  }
}

}  // namespace lorapp
