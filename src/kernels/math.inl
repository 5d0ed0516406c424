// Elementary functions in the vocabulary of vec_<isa>.hpp, which is included before.
#pragma once

#include "kernels/float16.hpp"

namespace lorapp::kernels {
namespace {

/// e^x within 1 ulp where the result is normal; 0 for -inf, inf above 88.73, NaN for NaN.
Vec exp_of(Vec x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial fitted to the relative error there.
  x = min(splat(89.0f), max(splat(-104.0f), x));
  const Vec n = round_whole(mul(x, splat(0x1.715476p0f)));
  // ln 2 in two parts: products of n with the first are exact.
  Vec r = fma(n, splat(-0x1.63p-1f), x);
  r = fma(n, splat(0x1.bd0106p-13f), r);
  Vec p = splat(0.001381461275741458f);
  p = fma(p, r, splat(0.008368714712560177f));
  p = fma(p, r, splat(0.04166838899254799f));
  p = fma(p, r, splat(0.1666652113199234f));
  p = fma(p, r, splat(0.4999999403953552f));
  p = add(fma(mul(r, r), p, r), splat(1.0f));
  return times_power_of_two(p, n);
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
