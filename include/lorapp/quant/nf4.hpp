// NF4 and what every 4-bit format shares: code table, thresholds, nibble order, block scale.
// Level 0: standard library only, C++17, usable in device code; the one NF4 table of the tree.
#pragma once

#include <lorapp/host_device.hpp>

#include <cstdint>

namespace lorapp {

/// A 4-bit code table. A plain struct, so that it travels to device code by value.
struct Codebook4 {
  float value[16];        ///< code → value, in units of the block's absmax
  float threshold[15];    ///< ascending; the f32 midpoints of neighbouring values
  std::uint8_t code[16];  ///< rank of a value in ascending order → code
};

/// The float with these bits; `bits` must be those of a finite number. For constants in headers.
constexpr float float_from_bits(std::uint32_t bits) {
  const std::uint32_t exponent = (bits >> 23) & 0xffu;
  float magnitude = static_cast<float>((bits & 0x7fffffu) | (exponent != 0 ? 0x800000u : 0u));
  int power = static_cast<int>(exponent != 0 ? exponent : 1) - 150;
  for (; power > 0; --power) magnitude *= 2.0f;
  for (; power < 0; ++power) magnitude *= 0.5f;
  return (bits >> 31) != 0 ? -magnitude : magnitude;
}

/// The table with its thresholds: `code[r]` is the code of the r-th smallest value.
constexpr Codebook4 make_codebook4(const float (&values)[16], const std::uint8_t (&code)[16]) {
  Codebook4 book{};
  for (int i = 0; i < 16; ++i) {
    book.value[i] = values[i];
    book.code[i] = code[i];
  }
  for (int r = 0; r < 15; ++r) {
    book.threshold[r] = (values[code[r]] + values[code[r + 1]]) / 2.0f;
  }
  return book;
}

/// NF4: quantiles of a standard normal, scaled to [-1, 1], with an exact zero (Dettmers et al.
/// 2023, "QLoRA", appendix E; the values are those of bitsandbytes).
constexpr Codebook4 nf4_codebook() {
  return make_codebook4(
      {-1.0f, -0.6961928009986877f, -0.5250730514526367f, -0.39491748809814453f,
       -0.28444138169288635f, -0.18477343022823334f, -0.09105003625154495f, 0.0f,
       0.07958029955625534f, 0.16093020141124725f, 0.24611230194568634f, 0.33791524171829224f,
       0.44070982933044434f, 0.5626170039176941f, 0.7229568362236023f, 1.0f},
      {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15});
}

/// A block whose absmax is smaller is scaled as if it had this one, so that the scale stays finite.
constexpr float kMinBlockAbsmax = 1e-38f;

/// The number of thresholds strictly below v: the rank of the value nearest to v, ties to the
/// lower.
LORAPP_HD int rank4(const Codebook4& book, float v) {
  int rank = 0;
  for (int i = 0; i < 15; ++i) rank += v > book.threshold[i] ? 1 : 0;
  return rank;
}

/// The code of the value nearest to v, a weight divided by its block's absmax.
LORAPP_HD std::uint8_t encode4(const Codebook4& book, float v) { return book.code[rank4(book, v)]; }

/// The weight that a code stands for, in f32.
LORAPP_HD float decode4(const Codebook4& book, std::uint8_t code, float absmax) {
  return book.value[code & 15] * absmax;
}

/// What the weights of a full block are multiplied by before encoding: the reciprocal of its
/// absmax.
LORAPP_HD float block_scale(float absmax) {
  return 1.0f / (absmax > kMinBlockAbsmax ? absmax : kMinBlockAbsmax);
}

/// A short last block is divided by its absmax instead, which is also what it stores: the absmax,
/// raised to kMinBlockAbsmax unless the block is all zero.
LORAPP_HD float short_block_absmax(float absmax) {
  return absmax == 0.0f || absmax > kMinBlockAbsmax ? absmax : kMinBlockAbsmax;
}
LORAPP_HD float scale_in_short_block(float x, float absmax) {
  return absmax == 0.0f ? 0.0f : x / absmax;
}

/// Two codes in a byte: the first element is in the high nibble.
LORAPP_HD std::uint8_t pack_nibbles(std::uint8_t first, std::uint8_t second) {
  return static_cast<std::uint8_t>((first << 4) | second);
}
LORAPP_HD std::uint8_t unpack_nibble(std::uint8_t byte, bool second) {
  return second ? byte & 15 : byte >> 4;
}

namespace detail {
// Checked against the values that bitsandbytes' CUDA kernels spell out: the midpoints equal them.
constexpr bool nf4_thresholds_are_exact() {
  constexpr std::uint32_t bits[15] = {0xbf591cd8, 0xbf1c5270, 0xbeeb8480, 0xbeadea76, 0xbe703cec,
                                      0xbe0d38bc, 0xbd3a7871, 0x3d22faff, 0x3df64862, 0x3e5067e0,
                                      0x3e9582d4, 0x3ec753f9, 0x3f006d04, 0x3f248daf, 0x3f5c89da};
  constexpr Codebook4 book = nf4_codebook();
  for (int i = 0; i < 15; ++i) {
    if (book.threshold[i] != float_from_bits(bits[i])) return false;
  }
  return true;
}
static_assert(nf4_thresholds_are_exact());
}  // namespace detail

}  // namespace lorapp
