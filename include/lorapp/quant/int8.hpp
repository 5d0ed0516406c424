// 8-bit weights with one absmax a row: what codes are, and the values they stand for.
// Level 0: standard library only, C++17, usable in device code.
#pragma once

#include <lorapp/host_device.hpp>

#include <cstdint>

namespace lorapp {

/// The largest code: a row's absmax, or minus it, is ±127. No code is -128.
constexpr float kInt8Max = 127.0f;

/// What a row's weights are multiplied by before they are rounded to codes (Dettmers et al. 2022,
/// "LLM.int8()", section 2.1): 127 / absmax, by way of the reciprocal, as PyTorch divides a number
/// by a tensor. 0 for a row of zeros, and infinite where absmax is below about 3.7e-37: such a row
/// is divided instead (encode_small_int8).
LORAPP_HD float int8_scale(float absmax) {
  return absmax == 0.0f ? 0.0f : 1.0f / absmax * kInt8Max;
}

/// x, of magnitude 127 and a rounding error at most, to the nearest whole number, ties to even.
LORAPP_HD std::int8_t round_int8(float x) {
  constexpr float kWhole = 0x1.8p23f;  // next to it, floats are the whole numbers
  return static_cast<std::int8_t>((x + kWhole) - kWhole);
}

/// The code of a weight; `scale` is int8_scale of its row, and finite.
LORAPP_HD std::int8_t encode_int8(float x, float scale) { return round_int8(x * scale); }
/// Of a row whose scale is not.
LORAPP_HD std::int8_t encode_small_int8(float x, float absmax) {
  return round_int8(x / absmax * kInt8Max);
}

/// The weight that code 1 of a row stands for; code c stands for c times that.
LORAPP_HD float int8_step(float absmax) { return absmax * (1.0f / kInt8Max); }

}  // namespace lorapp
