// Dropout without a stored mask: the forward and the backward pass compute it from the seed.
#include "kernels/rows_args.hpp"
#include "nn/row_kernels.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/dropout.hpp>

#include <ATen/Dispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

namespace lorapp {

namespace {

// Pairs of elements: each shares the bits of one hash.
std::int64_t pairs_of(const torch::Tensor& x) { return (x.numel() + 1) / 2; }

constexpr const char* kOp = "dropout";

// apply_mask in float32, bfloat16 or float16, with a factor of `factor_type`.
torch::Tensor apply_mask_with_kernel(const torch::Tensor& given,
                                     double p,
                                     std::uint64_t seed,
                                     at::ScalarType factor_type) {
  const torch::Tensor x = given.contiguous();
  const torch::Tensor out = at::empty_like(x);
  const float keep_scale = at::scalar_tensor(1 / (1 - p), factor_type).to(at::kFloat).item<float>();
  detail::for_row_ranges(kOp, x.device(), pairs_of(x), 2,
                         [&](const auto& kernel, std::int64_t begin, std::int64_t end) {
                           kernel.dropout({
                               .x = detail::elements(x, 2 * begin),
                               .type = detail::float_type(x.scalar_type()),
                               .n = std::min(2 * end, x.numel()) - 2 * begin,
                               .key = seed_key(seed),
                               .first_pair = static_cast<std::uint64_t>(begin),
                               .threshold = drop_threshold(p),
                               .keep_scale = keep_scale,
                               .y = detail::mutable_elements(out, 2 * begin),
                           });
                         });
  return out;
}

torch::Tensor apply_mask(const torch::Tensor& x, double p, std::uint64_t seed) {
  LORAPP_CHECK(x.is_floating_point(), kOp, "input has the type ", x.scalar_type(),
               "; expected a floating type");
  if (detail::has_row_kernel(x)) return apply_mask_with_kernel(x, p, seed, x.scalar_type());
  // On another device the mask is made here and moved: correct everywhere, fast on the CPU.
  const torch::Tensor source = x.is_cpu() ? x.contiguous() : torch::Tensor();
  torch::Tensor out =
      x.is_cpu() ? at::empty_like(source) : at::empty(x.sizes(), x.options().device(torch::kCPU));
  const std::uint32_t threshold = drop_threshold(p);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, x.scalar_type(), "seeded_dropout", [&] {
    const scalar_t* from = source.defined() ? source.const_data_ptr<scalar_t>() : nullptr;
    scalar_t* to = out.mutable_data_ptr<scalar_t>();
    const auto keep_scale = static_cast<scalar_t>(1 / (1 - p));
    at::parallel_for(
        0, pairs_of(out), detail::grain_for(2, detail::kElementGrain),
        [&](std::int64_t begin, std::int64_t end) {
          for (std::int64_t pair = begin; pair < end; ++pair) {
            // The low half is the even element's, the high half the odd one's.
            const std::uint64_t bits = derive_seed(seed, static_cast<std::uint64_t>(pair));
            const std::int64_t i = 2 * pair;
            const auto value = [&](std::int64_t k) {
              return from != nullptr ? from[k] * keep_scale : keep_scale;
            };
            to[i] = static_cast<std::uint32_t>(bits) < threshold ? scalar_t(0) : value(i);
            if (i + 1 < out.numel()) {
              to[i + 1] =
                  static_cast<std::uint32_t>(bits >> 32) < threshold ? scalar_t(0) : value(i + 1);
            }
          }
        });
  });
  return x.is_cpu() ? out : x * out.to(x.device());
}

// apply_mask to x in float32, rounded to the type of x.
torch::Tensor apply_mask_rounded(const torch::Tensor& x, double p, std::uint64_t seed) {
  if (detail::has_row_kernel(x)) return apply_mask_with_kernel(x, p, seed, at::kFloat);
  return apply_mask(x.to(at::kFloat), p, seed).to(x.scalar_type());
}

using Mask = torch::Tensor (*)(const torch::Tensor&, double, std::uint64_t);

template <Mask mask>
struct DropoutFn : torch::autograd::Function<DropoutFn<mask>> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context,
                               const torch::Tensor& x,
                               double p,
                               std::int64_t seed) {
    context->saved_data["p"] = p;
    context->saved_data["seed"] = seed;
    return mask(x, p, static_cast<std::uint64_t>(seed));
  }

  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* context,
                                               torch::autograd::tensor_list gradients) {
    return {mask(gradients[0], context->saved_data["p"].toDouble(),
                 static_cast<std::uint64_t>(context->saved_data["seed"].toInt())),
            torch::Tensor(), torch::Tensor()};
  }
};

template <Mask mask>
torch::Tensor dropout(const torch::Tensor& x, double p, std::uint64_t seed) {
  LORAPP_CHECK(p >= 0 && p < 1, kOp, "p is ", p, "; expected a probability in [0, 1)");
  if (p == 0) return x;
  return DropoutFn<mask>::apply(x, p, static_cast<std::int64_t>(seed));
}

}  // namespace

torch::Tensor seeded_dropout(const torch::Tensor& x, double p, std::uint64_t seed) {
  return dropout<&apply_mask>(x, p, seed);
}

torch::Tensor rounded_dropout(const torch::Tensor& x, double p, std::uint64_t seed) {
  return dropout<&apply_mask_rounded>(x, p, seed);
}

}  // namespace lorapp
