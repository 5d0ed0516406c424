// Code parts for fixed_point.inl with AVX2. After vec_avx2.hpp.
#pragma once

#include "kernels/product_args.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kFixedPanels = 1;     // of a product with one row or two
constexpr int kFewFixedPanels = 1;  // with more

Words splat_integer(std::int32_t x) { return _mm256_set1_epi32(x); }
Vec floats_of(Words x) { return _mm256_cvtepi32_ps(x); }

/// As in code_parts_avx512.hpp, but 14 bits: pairs of products are added in 16 bits, which hold
/// 2 · 127 · 128.
class CodeParts {
 public:
  static constexpr std::int32_t kOffset = 64;
  static constexpr float kUnit = 8191.0f;

  explicit CodeParts(const float* value) {
    alignas(16) std::uint8_t high[16], low[16];
    for (int i = 0; i < 16; i += 8) {
      const __m256 scaled = _mm256_mul_ps(_mm256_loadu_ps(value + i), _mm256_set1_ps(kUnit));
      std::int32_t integers[8];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(integers), _mm256_cvtps_epi32(scaled));
      for (int j = 0; j < 8; ++j) {
        const std::int32_t integer = integers[j] + kOffset * kPartStep;
        high[i + j] = static_cast<std::uint8_t>(integer >> kPartBits);
        low[i + j] = static_cast<std::uint8_t>(integer & (kPartStep - 1));
      }
    }
    high_ = _mm256_broadcastsi128_si256(load_128(high));
    low_ = _mm256_broadcastsi128_si256(load_128(low));
  }

  struct Line {
    Words first_high, first_low, second_high, second_low;

    void multiply(const std::int8_t* x, Words& high, Words& low) const {
      const Words x_first_high = bytes(x), x_second_high = bytes(x + 4);
      high = _mm256_add_epi32(high, widened(_mm256_maddubs_epi16(first_high, x_first_high)));
      high = _mm256_add_epi32(high, widened(_mm256_maddubs_epi16(second_high, x_second_high)));
      low = _mm256_add_epi32(low, widened(_mm256_maddubs_epi16(first_low, x_first_high)));
      low = _mm256_add_epi32(low, widened(_mm256_maddubs_epi16(second_low, x_second_high)));
      // Low parts of x are at most 64: four of these products fit into 16 bits.
      const Words by_low = _mm256_add_epi16(_mm256_maddubs_epi16(first_high, bytes(x + 8)),
                                            _mm256_maddubs_epi16(second_high, bytes(x + 12)));
      low = _mm256_add_epi32(low, widened(by_low));
    }
  };

  Line look_up(Words line) const {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i first = _mm256_and_si256(line, nibble);
    const __m256i second = _mm256_and_si256(_mm256_srli_epi32(line, 4), nibble);
    return {_mm256_shuffle_epi8(high_, first), _mm256_shuffle_epi8(low_, first),
            _mm256_shuffle_epi8(high_, second), _mm256_shuffle_epi8(low_, second)};
  }

 private:
  static Words widened(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }
  static Words bytes(const std::int8_t* p) {
    std::int32_t word;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
  }

  __m256i high_, low_;
};

}  // namespace
}  // namespace lorapp::kernels
