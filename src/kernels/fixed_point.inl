// Products of a few rows with a packed weight in integers: 15 bits of x, as many of the codes'
// values, a sum of each span exact but for the lowest parts. After the vocabulary of bytes
// (vec_bytes_<isa>.hpp), for AVX2 and up.
#pragma once

#include "kernels/vector_product.inl"

namespace lorapp::kernels {
namespace {

/// The values of codes, from -1 to 1, as integers above zero: 128 · high part + low part =
/// round(value · kUnit) + 128 · kOffset. High parts have kHighPartBits.
class CodeParts {
 public:
  static constexpr std::int32_t kOffset = 1 << (kHighPartBits - 1);
  static constexpr float kUnit = static_cast<float>(kOffset * kPartStep - 1);

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
    high_ = byte_table(high);
    low_ = byte_table(low);
  }

  Words high(Words codes) const { return look_up_bytes(high_, codes); }
  Words low(Words codes) const { return look_up_bytes(low_, codes); }

 private:
  Words high_, low_;
};

// Eight integers of 15 bits as bytes: the high parts of columns 0 4 1 5 2 6 3 7, then the low ones.
__m128i split_parts(__m256i x, __m256i& high, __m256i& low) {
  // The largest integer, 16320, is 127 · 128 + 64: a high part of 128 is none.
  const __m256i rounded =
      _mm256_srai_epi32(_mm256_add_epi32(x, _mm256_set1_epi32(kPartStep / 2)), kPartBits);
  high = _mm256_min_epi32(rounded, _mm256_set1_epi32(127));
  low = _mm256_sub_epi32(x, _mm256_slli_epi32(high, kPartBits));
  const __m256i both = _mm256_packs_epi32(high, low);
  const __m256i bytes = _mm256_packs_epi16(both, both);
  return _mm_unpacklo_epi8(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
}

std::int32_t sum_of_lanes(__m256i x) {
  __m128i s = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1)));
}

// The power of two by which a span with this largest magnitude is divided; 0: it has none.
float fixed_scale(std::uint32_t largest) {
  constexpr std::uint32_t kLeast = (127u - 60u) << 23, kMost = (127u + 60u) << 23;
  if (largest == 0) return 1.0f;
  if (largest < kLeast || largest > kMost) return 0.0f;
  return from_bits((largest & 0x7f800000u) - (13u << 23));
}

bool fix_rows(const FixRowsArgs& args) {
  count_call();
  std::int8_t* out = args.parts;
  FixedSpan* span = args.spans;
  for (const float* x = args.x; x < args.x + args.rows * args.columns; x += args.span, ++span) {
    __m256i largest = _mm256_setzero_si256();
    for (std::int64_t i = 0; i < args.span; i += 8) {
      const __m256i bits = load_256(x + i);
      largest = _mm256_max_epu32(largest, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    }
    std::uint32_t lanes[8], most = 0;
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes), largest);
    for (const std::uint32_t lane : lanes) most = lane > most ? lane : most;
    const float scale = fixed_scale(most);
    if (scale == 0.0f) return false;
    const __m256 factor = _mm256_set1_ps(1.0f / scale);
    __m256i high_sum = _mm256_setzero_si256(), low_sum = high_sum;
    for (std::int64_t i = 0; i < args.span; i += 8, out += 16) {
      __m256i high, low;
      const __m256i integers = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out), split_parts(integers, high, low));
      high_sum = _mm256_add_epi32(high_sum, high);
      low_sum = _mm256_add_epi32(low_sum, low);
    }
    *span = {-CodeParts::kOffset * sum_of_lanes(high_sum),
             -CodeParts::kOffset * sum_of_lanes(low_sum), scale * (kPartStep / CodeParts::kUnit)};
  }
  return true;
}

// A way of packed_vector_product.
class InIntegers {
 public:
  static constexpr int kPanels = kFixedPanels;
  static constexpr int kFewPanels = kFewFixedPanels;
  struct Sum {
    Words high, low;
  };

  explicit InIntegers(const VectorProductArgs& args)
      : codes_(args.w->value),
        x_(*args.fixed),
        columns_(args.w->columns),
        spans_(args.w->columns / args.w->span) {}

  Sum start(int r, std::int64_t span) const {
    const FixedSpan& x = x_.spans[r * spans_ + span];
    return {splat_integer(x.high), splat_integer(x.low)};
  }

  // High parts times high ones, and high times low both ways. Low times low is left out: at most
  // 2⁻¹⁵ of the largest product, with 14 bits 2⁻¹⁴.
  template <int Rows, int Vectors>
  void add_line(const std::uint8_t* line,
                std::int64_t column,
                Sum (&sum)[Rows][Vectors],
                int v) const {
    const Words words = load_words(line);
    const Words first = low_nibbles(words), second = low_nibbles(shift_right(words, 4));
    const Words first_high = codes_.high(first), second_high = codes_.high(second);
    const Words first_low = codes_.low(first), second_low = codes_.low(second);
    for (int r = 0; r < Rows; ++r) {
      const std::int8_t* x = x_.parts + 2 * (r * columns_ + column);  // split_parts
      Sum& s = sum[r][v];
      s.high = add_byte_products(s.high, first_high, splat_bytes(x));
      s.high = add_byte_products(s.high, second_high, splat_bytes(x + 4));
      s.low = add_byte_products(s.low, first_low, splat_bytes(x));
      s.low = add_byte_products(s.low, second_low, splat_bytes(x + 4));
      s.low = add_two_byte_products(s.low, first_high, splat_bytes(x + 8), second_high,
                                    splat_bytes(x + 12));
    }
  }

  Vec add_to(Vec total, const Sum& sum, Vec scale, int r, std::int64_t span) const {
    const Vec product = fma(floats_of(sum.high), splat(kPartStep), floats_of(sum.low));
    return fma(product, mul(scale, splat(x_.spans[r * spans_ + span].scale)), total);
  }

 private:
  CodeParts codes_;
  FixedRows x_;
  std::int64_t columns_, spans_;
};

void vector_product_of_parts(const VectorProductArgs& args) {
  if (args.fixed == nullptr) return vector_product(args);
  count_call();
  packed_vector_product<InIntegers>(args);
}

}  // namespace
}  // namespace lorapp::kernels
