// Code parts for fixed_point.inl with AVX512_VNNI, which adds four products of bytes to each lane.
// After vec_avx512.hpp.
#pragma once

#include "kernels/product_args.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kFixedPanels = 4;     // of a product with one row or two
constexpr int kFewFixedPanels = 2;  // with more

Words splat_integer(std::int32_t x) { return _mm512_set1_epi32(x); }
Vec floats_of(Words x) { return _mm512_cvtepi32_ps(x); }

/// The values of codes as integers of 15 bits above zero: 128 · high part + low part =
/// round(value · kUnit) + 128 · kOffset. Values are from -1 to 1.
class CodeParts {
 public:
  static constexpr std::int32_t kOffset = 128;
  static constexpr float kUnit = 16383.0f;

  explicit CodeParts(const float* value) {
    const __m512i integers = _mm512_add_epi32(
        _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(value), _mm512_set1_ps(kUnit))),
        _mm512_set1_epi32(kOffset * kPartStep));
    high_ = table_of(_mm512_srli_epi32(integers, kPartBits));
    low_ = table_of(_mm512_and_si512(integers, _mm512_set1_epi32(kPartStep - 1)));
  }

  /// A line's: of columns 0 4 1 5 in `first`, of 2 6 3 7 in `second`.
  struct Line {
    Words first_high, first_low, second_high, second_low;

    /// Adds the products of each row's parts with those of x (split_parts): high with high, and
    /// high with low both ways. Low with low is left out: at most 2⁻¹⁵ of the largest product.
    void multiply(const std::int8_t* x, Words& high, Words& low) const {
      const Words x_first_high = bytes(x), x_second_high = bytes(x + 4);
      high = _mm512_dpbusd_epi32(high, first_high, x_first_high);
      low = _mm512_dpbusd_epi32(low, first_low, x_first_high);
      high = _mm512_dpbusd_epi32(high, second_high, x_second_high);
      low = _mm512_dpbusd_epi32(low, second_low, x_second_high);
      low = _mm512_dpbusd_epi32(low, first_high, bytes(x + 8));
      low = _mm512_dpbusd_epi32(low, second_high, bytes(x + 12));
    }
  };

  Line look_up(Words line) const {
    const __m512i nibble = _mm512_set1_epi8(15);
    const __m512i first = _mm512_and_si512(line, nibble);
    const __m512i second = _mm512_and_si512(_mm512_srli_epi32(line, 4), nibble);
    return {_mm512_shuffle_epi8(high_, first), _mm512_shuffle_epi8(low_, first),
            _mm512_shuffle_epi8(high_, second), _mm512_shuffle_epi8(low_, second)};
  }

 private:
  static __m512i table_of(__m512i x) { return _mm512_broadcast_i32x4(_mm512_cvtepi32_epi8(x)); }
  static Words bytes(const std::int8_t* p) {
    std::int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm512_set1_epi32(word);
  }

  __m512i high_, low_;
};

}  // namespace
}  // namespace lorapp::kernels
