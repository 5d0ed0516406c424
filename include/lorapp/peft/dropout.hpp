// Dropout with masks that are a pure function of a seed and an element's index.
// No generator, no stored mask: a recomputed forward pass and the backward pass repeat the bits.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/random_bits.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lorapp {

/// An element is dropped where its 32 bits are below this: probability p to within 2⁻³².
inline std::uint32_t drop_threshold(double p) {
  return static_cast<std::uint32_t>(std::min(std::ldexp(p, 32), 4294967295.0));
}

/// x with each element set to zero with probability `p`, the others divided by 1 - p; any shape,
/// floating dtype. Differentiable; keeps the seed for the backward pass instead of a mask.
LORAPP_API torch::Tensor seeded_dropout(const torch::Tensor& x, double p, std::uint64_t seed);

/// seeded_dropout of x in float32, rounded to the type of x, and so is its gradient: 1 / (1 - p) is
/// not rounded by itself.
LORAPP_API torch::Tensor rounded_dropout(const torch::Tensor& x, double p, std::uint64_t seed);

}  // namespace lorapp
