// Elementary functions of vectors, from the vocabulary of vec_<isa>.hpp.
#pragma once

#include "kernels/float16.hpp"

namespace lorapp::kernels {
namespace {

/// exp(x) to 2 ulp. 0 below about -87 (results that would be less than 2^-125.5), infinity where
/// the result is too large, NaN of NaN.
Vec exp_of(Vec x) {
  x = min_of(splat(89.0f), max_of(splat(-87.3f), x));  // NaN stays, being second
  // x = n · ln 2 + r, |r| ≤ ln 2 / 2. Adding 1.5 · 2^23 rounds to an integer, and leaves n + 126 in
  // the low bits: as an exponent that is 2^(n - 1), and 0 for n = -126.
  const Vec shifter = splat(0x1.8p23f + 126.0f);
  const Vec shifted = fma(x, splat(0x1.715476p0f), shifter);
  const Vec n = sub(shifted, shifter);
  Vec r = fma(n, splat(-0x1.62e4p-1f), x);  // its 16 bits times n's 8 are exact
  r = fma(n, splat(-0x1.7f7d1cp-20f), r);
  // 2 · exp(r): the polynomial of degree 6 with the least relative error.
  Vec p = splat(0x1.6a1f62p-9f);
  p = fma(p, r, splat(0x1.123cccp-6f));
  p = fma(p, r, splat(0x1.555904p-4f));
  p = fma(p, r, splat(0x1.55548ep-2f));
  p = fma(p, r, splat(0x1.fffffcp-1f));
  p = fma(p, r, splat(2.0f));
  p = fma(p, r, splat(2.0f));
  return mul(p, vec_of(shift_left(words_of(shifted), 23)));
}

/// ln x of a positive normal x, within 2 ulp where it is not near 1; NaN for NaN, inf for inf.
LORAPP_HD float log_of(float x) {
  if (!is_finite(x)) return x;
  // x = 2^k m with m from √½ to √2; ln m = 2 artanh((m - 1) / (m + 1)).
  const std::uint32_t bits = bits_of(x) - 0x3f3504f3u;
  const auto k = static_cast<float>(static_cast<std::int32_t>(bits) >> 23);
  const float m = from_bits((bits & 0x7fffffu) + 0x3f3504f3u);
  const float f = (m - 1.0f) / (m + 1.0f), f2 = f * f;
  const float series =
      f2 * (1.0f / 3 + f2 * (1.0f / 5 + f2 * (1.0f / 7 + f2 * (1.0f / 9 + f2 * (1.0f / 11)))));
  return k * 0x1.62e43p-1f + (2.0f * f + (2.0f * f * series + k * -0x1.05c61p-29f));
}

}  // namespace
}  // namespace lorapp::kernels
