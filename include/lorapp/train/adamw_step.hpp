// One step of AdamW for one element: the rule of the optimizer and of its kernels.
// Standard library only, C++17.
#pragma once

#include <lorapp/host_device.hpp>

namespace lorapp {

/// What gradients of this norm are multiplied by, as torch.nn.utils.clip_grad_norm_ does; 1 where
/// `max_norm` is 0.
LORAPP_HD double clip_factor(double norm, double max_norm) {
  const double factor = max_norm > 0 ? max_norm / (norm + 1e-6) : 1.0;
  return factor < 1.0 ? factor : 1.0;
}

/// The constants of one AdamW step for one element.
struct AdamWStep {
  float decay;            ///< 1 − lr · weight_decay
  float beta2;            ///< of the second moment
  float one_minus_beta1;  ///< weight of the gradient in the first moment
  float one_minus_beta2;
  float bias_correction2_sqrt;  ///< √(1 − beta2ᵗ)
  float step_size;              ///< lr / (1 − beta1ᵗ)
  float eps;
  float clip;  ///< what the gradient is multiplied by first

  /// One element (Loshchilov & Hutter 2017, arXiv:1711.05101), in torch.optim.AdamW's order.
  LORAPP_HD void update(float& p, float gradient, float& m, float& v) const {
    const float g = gradient * clip;
    p *= decay;
    m += one_minus_beta1 * (g - m);
    v = v * beta2 + one_minus_beta2 * (g * g);
    // A builtin: std::sqrt would be a function of this object, of which another may take the place.
    p -= step_size * m / (__builtin_sqrtf(v) / bias_correction2_sqrt + eps);
  }
};

}  // namespace lorapp
