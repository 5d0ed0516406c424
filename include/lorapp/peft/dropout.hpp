// Dropout with masks that are a pure function of a seed and an element's index.
// No generator, no stored mask: a recomputed forward pass and the backward pass repeat the bits.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lorapp {

/// One step of splitmix64's output function (Steele, Lea, Flood 2014): a bijection of 64-bit words
/// that no statistical test in common use can tell from random.
constexpr std::uint64_t mix_bits(std::uint64_t word) {
  word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
  word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
  return word ^ (word >> 31);
}

/// The odd constant nearest 2⁶⁴ divided by the golden ratio.
inline constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15u;

/// The part of derive_seed that depends on the seed alone.
constexpr std::uint64_t seed_key(std::uint64_t seed) { return mix_bits(seed + kGoldenGamma); }

/// A seed derived from another and an index; neighbours of either are unrelated.
constexpr std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t index) {
  return mix_bits(seed_key(seed) ^ (index * kGoldenGamma + kGoldenGamma));
}

/// An element is dropped where its 32 bits are below this: probability p to within 2⁻³².
inline std::uint32_t drop_threshold(double p) {
  return static_cast<std::uint32_t>(std::min(std::ldexp(p, 32), 4294967295.0));
}

/// x with each element set to zero with probability `p`, the others divided by 1 - p; any shape,
/// floating dtype. Differentiable; keeps the seed for the backward pass instead of a mask.
LORAPP_API torch::Tensor seeded_dropout(const torch::Tensor& x, double p, std::uint64_t seed);

}  // namespace lorapp
