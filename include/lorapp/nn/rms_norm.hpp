// RMSNorm: x / √(mean(x²) + ε) · weight over the last dimension.
// Computed in float32 (float64 for float64), rounded to x's dtype before the weight, as
// transformers.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>
#include <lorapp/quant/ops.hpp>

#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>
#include <torch/types.h>

#include <cstdint>
#include <vector>

namespace lorapp {

namespace detail {

/// The rule, of LibTorch's operations: any dtype, device and strides.
inline torch::Tensor composed_rms_norm(const torch::Tensor& x,
                                       const torch::Tensor& weight,
                                       double eps) {
  const auto dtype = x.scalar_type();
  const torch::Tensor wide = dtype == torch::kFloat64 ? x : x.to(torch::kFloat32);
  const torch::Tensor scale = at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
  return weight * (wide * scale).to(dtype);
}

}  // namespace detail

/// Root mean square normalization (Zhang and Sennrich 2019). x […, n], weight [n].
/// Contiguous rows on the CPU, or a GPU with kernels, go through one kernel, which can be
/// differentiated once.
LORAPP_API torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// The layer. It holds no weight until set_weight() gives it one.
class LORAPP_API RMSNormImpl : public torch::nn::Module {
 public:
  RMSNormImpl(std::int64_t size, double eps) : size_(size), eps_(eps) {}

  torch::Tensor forward(const torch::Tensor& x) const { return rms_norm(x, weight_, eps_); }

  /// How forward(x) is made again.
  Recipe recipe(const torch::Tensor& x) const {
    return {{x, weight_}, [eps = eps_](const std::vector<torch::Tensor>& inputs) {
              return rms_norm(inputs[0], inputs[1], eps);
            }};
  }

  const torch::Tensor& weight() const noexcept { return weight_; }
  std::int64_t size() const noexcept { return size_; }

  /// Makes `weight` [size] the parameter "weight".
  void set_weight(const torch::Tensor& weight, bool requires_grad = true) {
    LORAPP_CHECK(weight.dim() == 1 && weight.size(0) == size_, "rms_norm", "weight has the shape ",
                 weight.sizes(), "; expected [", size_, "]");
    if (parameters_.contains("weight")) parameters_.erase("weight");
    weight_ = register_parameter("weight", weight.detach(), requires_grad);
  }

 private:
  std::int64_t size_;
  double eps_;
  torch::Tensor weight_;  // [size]
};
TORCH_MODULE(RMSNorm);

}  // namespace lorapp
