// Random bits that are a pure function of a seed and an index: splitmix64 (Steele, Lea, Flood
// 2014). Standard library only, C++17, usable in device code.
#pragma once

#include <lorapp/host_device.hpp>

#include <cstdint>

namespace lorapp {

/// The odd constant nearest 2⁶⁴ divided by the golden ratio: the step from one state to the next.
inline constexpr std::uint64_t kGoldenGamma = 0x9e3779b97f4a7c15u;
/// The factors of mix_bits, for those who compute it in vectors.
inline constexpr std::uint64_t kMixFactor1 = 0xbf58476d1ce4e5b9u;
inline constexpr std::uint64_t kMixFactor2 = 0x94d049bb133111ebu;

/// The output function of splitmix64: a bijection of 64-bit words that no statistical test in
/// common use can tell from random.
LORAPP_HD constexpr std::uint64_t mix_bits(std::uint64_t word) {
  word = (word ^ (word >> 30)) * kMixFactor1;
  word = (word ^ (word >> 27)) * kMixFactor2;
  return word ^ (word >> 31);
}

/// The part of derive_seed that depends on the seed alone.
LORAPP_HD constexpr std::uint64_t seed_key(std::uint64_t seed) {
  return mix_bits(seed + kGoldenGamma);
}

/// The part that is left: derive_seed(seed, i) is keyed_bits(seed_key(seed), i).
LORAPP_HD constexpr std::uint64_t keyed_bits(std::uint64_t key, std::uint64_t index) {
  return mix_bits(key ^ ((index + 1) * kGoldenGamma));
}

/// A seed derived from another and an index; neighbours of either are unrelated.
LORAPP_HD constexpr std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t index) {
  return keyed_bits(seed_key(seed), index);
}

}  // namespace lorapp
