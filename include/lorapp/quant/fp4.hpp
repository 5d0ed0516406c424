// FP4: sign, two exponent bits, one mantissa bit, with a denormal; the table and its thresholds.
// Level 0; encode, decode and the block rules are those of nf4.hpp.
#pragma once

#include <lorapp/quant/nf4.hpp>

namespace lorapp {

/// FP4 as bitsandbytes has it: {0, 1/16, 8, 12, 4, 6, 2, 3} / 12, bit 3 is the sign.
/// Codes 0 and 8 are both zero: a value rounded to zero from above gets 8, every other one 0, as
/// bitsandbytes writes on a CPU.
constexpr Codebook4 fp4_codebook() {
  return make_codebook4(
      {0.0f, 0.0052083334885537624f, 0.6666666865348816f, 1.0f, 0.3333333432674408f, 0.5f,
       0.1666666716337204f, 0.25f, 0.0f, -0.0052083334885537624f, -0.6666666865348816f, -1.0f,
       -0.3333333432674408f, -0.5f, -0.1666666716337204f, -0.25f},
      {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3});
}

namespace detail {
constexpr bool fp4_thresholds_are_exact() {
  constexpr std::uint32_t bits[15] = {0xbf555556, 0xbf155556, 0xbed55556, 0xbe955556, 0xbe555556,
                                      0xbdb00000, 0xbb2aaaab, 0x00000000, 0x3b2aaaab, 0x3db00000,
                                      0x3e555556, 0x3e955556, 0x3ed55556, 0x3f155556, 0x3f555556};
  constexpr Codebook4 book = fp4_codebook();
  for (int i = 0; i < 15; ++i) {
    if (book.threshold[i] != float_from_bits(bits[i])) return false;
  }
  return true;
}
static_assert(fp4_thresholds_are_exact());
}  // namespace detail

}  // namespace lorapp
