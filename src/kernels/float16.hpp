// bf16 and f16 to and from f32, bit by bit; rounding to nearest, ties to even, as LibTorch does.
// The reference of every vector conversion, and what all tables use for the ends of arrays. C++17.
#pragma once

#include "kernels/table.hpp"

#include <lorapp/host_device.hpp>
#include <lorapp/quant/int8.hpp>

#include <cstdint>
#include <cstring>

namespace lorapp::kernels {

LORAPP_HD std::uint32_t bits_of(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
LORAPP_HD float from_bits(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
LORAPP_HD bool is_finite(float x) { return (bits_of(x) & 0x7f800000u) != 0x7f800000u; }

LORAPP_HD float bf16_to_f32(std::uint16_t h) {
  return from_bits(static_cast<std::uint32_t>(h) << 16);
}

LORAPP_HD std::uint16_t f32_to_bf16(float x) {
  const std::uint32_t bits = bits_of(x);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fc0;  // NaN
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

LORAPP_HD float f16_to_f32(std::uint16_t h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t exponent = (h >> 10) & 31u;
  const std::uint32_t mantissa = h & 0x3ffu;
  if (exponent == 31) return from_bits(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return from_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero or subnormal
  return from_bits(sign | bits_of(magnitude));
}

LORAPP_HD std::uint16_t f32_to_f16(float x) {
  const std::uint32_t bits = bits_of(x);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // ≥ 65520
  std::uint32_t rounded;
  if (magnitude < 0x38800000u) {
    // Below 2^-14 the result counts units of 2^-24: adding 0.5 makes the addition round to them.
    rounded = bits_of(from_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    rounded = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<std::uint16_t>(sign | rounded);
}

/// x rounded to another type and back.
LORAPP_HD float round_to(Float type, float x) {
  switch (type) {
    case Float::bf16:
      return bf16_to_f32(f32_to_bf16(x));
    case Float::f16:
      return f16_to_f32(f32_to_f16(x));
    case Float::f32:
      break;
  }
  return x;
}

/// Element types, as template arguments: how one element is stored, and its value.
struct F32 {
  static constexpr Float kFloat = Float::f32;
  using Storage = float;
  LORAPP_HD static float load(Storage x) { return x; }
  LORAPP_HD static Storage store(float x) { return x; }
};
struct Bf16 {
  static constexpr Float kFloat = Float::bf16;
  using Storage = std::uint16_t;
  LORAPP_HD static float load(Storage x) { return bf16_to_f32(x); }
  LORAPP_HD static Storage store(float x) { return f32_to_bf16(x); }
};
struct F16 {
  static constexpr Float kFloat = Float::f16;
  using Storage = std::uint16_t;
  LORAPP_HD static float load(Storage x) { return f16_to_f32(x); }
  LORAPP_HD static Storage store(float x) { return f32_to_f16(x); }
};
/// Codes, which mean something beside a row's scale only.
struct Int8 {
  using Storage = std::int8_t;
  LORAPP_HD static float load(Storage x) { return static_cast<float>(x); }
  LORAPP_HD static Storage store(float x) { return round_int8(x); }
};

}  // namespace lorapp::kernels
