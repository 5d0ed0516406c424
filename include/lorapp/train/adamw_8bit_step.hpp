// AdamW's moments in 8 bits: how they are kept between the steps of adamw_step.hpp.
// Blockwise, as Dettmers et al. 2021 ("8-bit Optimizers via Block-wise Quantization",
// arXiv:2110.02861) and bitsandbytes' AdamW8bit do: 256 elements of a tensor share an absmax, an
// element is the code of the nearest value of a map times it. Standard library only, C++17.
//
// What a step does differs from bitsandbytes' CUDA kernel in this:
// - the step is AdamWStep's: weight decay comes before the update (after it there, by lr² less),
//   and every operation is rounded to nearest, where it has approximate divisions and powers;
// - a gradient that is not finite makes its parameter NaN, and at the next step those of its block;
//   there the element is passed over in silence;
// - codes are exactly the nearest, ties to the lower; a block of zeros has the codes of 0.
#pragma once

#include <lorapp/host_device.hpp>
#include <lorapp/quant/double_quant.hpp>
#include <lorapp/train/adamw_step.hpp>

#include <cstdint>
#include <cstring>

namespace lorapp {

/// Elements that share an absmax.
constexpr std::int64_t kMomentBlock = 256;
/// Tensors with fewer elements keep moments in 32 bits.
constexpr std::int64_t kLeast8bitElements = 4096;
/// The code of 0 in each map.
constexpr std::uint8_t kZeroOfFirstMoment = 127;
constexpr std::uint8_t kZeroOfSecondMoment = 0;

/// A map with what lies between its values, so that finding a code takes comparisons of float32
/// only: v is nearer to value[i + 1] than to value[i] exactly where v > bound[i].
struct MomentMap {
  float value[256];
  float bound[256];  // the last is not read
};

/// The largest float32 that is not above the middle between two floats, which double holds.
LORAPP_HD float bound_between(float low, float high) {
  const double middle = (static_cast<double>(low) + static_cast<double>(high)) / 2;
  float bound = static_cast<float>(middle);
  if (static_cast<double>(bound) > middle) {  // rounded up: the float before it
    std::uint32_t bits;
    std::memcpy(&bits, &bound, sizeof bits);
    bits += bound > 0 ? ~0u : 1u;
    std::memcpy(&bound, &bits, sizeof bound);
  }
  return bound;
}

/// Fills in entry i.
LORAPP_HD void set_entry(MomentMap& map, const DynamicMap& values, int i) {
  map.value[i] = values.value[i];
  map.bound[i] = bound_between(values.value[i], values.value[i < 255 ? i + 1 : i]);
}

/// The code of the value nearest to v, ties to the lower; 0 of NaN.
LORAPP_HD std::uint8_t nearest_code(const MomentMap& map, float v) {
  int low = 0;  // the number of bounds below v, by bisection
  for (int step = 128; step > 0; step /= 2) {
    if (v > map.bound[low + step - 1]) low += step;
  }
  return static_cast<std::uint8_t>(low);
}

/// What a moment adds to the largest magnitude of its block: +infinity where it is not finite.
LORAPP_HD float moment_magnitude(float x) {
  const float magnitude = x < 0 ? -x : x + 0.0f;  // which makes a zero positive
  return magnitude < __builtin_inff() ? magnitude : __builtin_inff();
}

/// A block's absmax of that largest magnitude. NaN where a moment is not finite: every moment of
/// the block then reads as NaN.
LORAPP_HD float moment_absmax(float largest) {
  return largest < __builtin_inff() ? largest : __builtin_nanf("");
}

LORAPP_HD float decode_moment(const MomentMap& map, std::uint8_t code, float absmax) {
  return map.value[code] * absmax;
}

/// What is below 0 stays there, if only as the smallest value: a first moment never turns.
LORAPP_HD std::uint8_t encode_first_moment(const MomentMap& map, float m, float absmax) {
  if (absmax == 0) return kZeroOfFirstMoment;
  const std::uint8_t code = nearest_code(map, m / absmax);
  return m < 0 && code == kZeroOfFirstMoment ? kZeroOfFirstMoment - 1 : code;
}

LORAPP_HD std::uint8_t encode_second_moment(const MomentMap& map, float v, float absmax) {
  return absmax == 0 ? kZeroOfSecondMoment : nearest_code(map, v / absmax);
}

}  // namespace lorapp
