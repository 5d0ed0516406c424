// The vocabulary of kernels.inl for AVX-512 F, BW, VL, DQ: 32 elements (16 bytes of codes) at a
// time. Included by the AVX-512 files alone; bit-equal to simd_scalar.hpp.
#pragma once

#include "kernels/float16.hpp"
#include "kernels/table.hpp"

#include <immintrin.h>

namespace lorapp::kernels {
namespace {

constexpr int kGroup = 32;

__m512i load_512(const void* p) { return _mm512_loadu_si512(p); }
__m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
__m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 16 elements as f32.
__m512 load_16(F32, const float* x) { return _mm512_loadu_ps(x); }
__m512 load_16(Bf16, const std::uint16_t* x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(load_256(x)), 16));
}
__m512 load_16(F16, const std::uint16_t* x) { return _mm512_cvtph_ps(load_256(x)); }

// To nearest even. Finite or infinite, not NaN: the kernels leave those to the scalar code.
__m512i bf16_bits(__m512 x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  return _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)),
                           16);
}
__m256i f16_bits(__m512 x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

__m512 round_16(Float type, __m512 x) {
  switch (type) {
    case Float::bf16:
      return _mm512_castsi512_ps(_mm512_slli_epi32(bf16_bits(x), 16));
    case Float::f16:
      return _mm512_cvtph_ps(f16_bits(x));
    case Float::f32:
      break;
  }
  return x;
}

// Magnitudes order as their bits do, infinity and NaN last: the maximum is taken over integers.
float max_abs_f32(const float* x, std::int64_t n) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  __m512i a = _mm512_setzero_si512(), b = a;
  for (std::int64_t i = 0; i < n; i += 32) {
    a = _mm512_max_epu32(a, _mm512_and_si512(load_512(x + i), mask));
    b = _mm512_max_epu32(b, _mm512_and_si512(load_512(x + i + 16), mask));
  }
  return from_bits(_mm512_reduce_max_epu32(_mm512_max_epu32(a, b)));
}
std::uint16_t max_magnitude_16(const std::uint16_t* x, std::int64_t n) {
  const __m512i mask = _mm512_set1_epi16(0x7fff);
  __m512i a = _mm512_setzero_si512();
  for (std::int64_t i = 0; i < n; i += 32) {
    a = _mm512_max_epu16(a, _mm512_and_si512(load_512(x + i), mask));
  }
  const __m256i h = _mm256_max_epu16(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
  const __m128i m = _mm_max_epu16(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  // There is a horizontal minimum, of the complement.
  const __m128i low = _mm_minpos_epu16(_mm_xor_si128(m, _mm_set1_epi16(-1)));
  return static_cast<std::uint16_t>(~_mm_cvtsi128_si32(low));
}
template <class T>
float max_abs(const typename T::Storage* x, std::int64_t n) {
  if constexpr (sizeof(typename T::Storage) == 4) {
    return max_abs_f32(x, n);
  } else {
    return T::load(max_magnitude_16(x, n));
  }
}

/// Finds ranks by bisection: four comparisons, against thresholds looked up by the bits found so
/// far. After l levels a lane holds the rank's l high bits as i; level l + 1 compares with the
/// threshold of rank (2i + 1) · 2^(3 - l), which the tables hold at i.
class Encoder {
 public:
  explicit Encoder(const Codebook4& book) {
    const float* t = book.threshold;
    level1_ = _mm512_set1_ps(t[7]);
    level2_ = _mm512_broadcast_f32x4(_mm_setr_ps(t[3], t[11], t[11], t[11]));
    level3_ = _mm512_broadcast_f32x4(_mm_setr_ps(t[1], t[5], t[9], t[13]));
    level4_ =
        _mm512_broadcast_f32x8(_mm256_setr_ps(t[0], t[2], t[4], t[6], t[8], t[10], t[12], t[14]));
    codes_ = _mm256_broadcastsi128_si256(load_128(book.code));
  }

  template <class T>
  void encode(const typename T::Storage* x, float scale, std::uint8_t* codes) const {
    const __m512 s = _mm512_set1_ps(scale);
    const __m128i r0 = ranks(_mm512_mul_ps(load_16(T(), x), s));
    const __m128i r1 = ranks(_mm512_mul_ps(load_16(T(), x + 16), s));
    const __m256i nibbles = _mm256_shuffle_epi8(codes_, _mm256_set_m128i(r1, r0));
    // first · 16 + second
    const __m256i bytes = _mm256_maddubs_epi16(nibbles, _mm256_set1_epi16(0x0110));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm256_cvtepi16_epi8(bytes));
  }

 private:
  static __m512i next(__m512i bits, __m512 v, __m512 threshold) {
    const __m512i twice = _mm512_add_epi32(bits, bits);
    const __mmask16 above = _mm512_cmp_ps_mask(v, threshold, _CMP_GT_OQ);
    return _mm512_mask_add_epi32(twice, above, twice, _mm512_set1_epi32(1));
  }
  __m128i ranks(__m512 v) const {
    __m512i r = next(_mm512_setzero_si512(), v, level1_);
    r = next(r, v, _mm512_permutevar_ps(level2_, r));
    r = next(r, v, _mm512_permutevar_ps(level3_, r));
    r = next(r, v, _mm512_permutexvar_ps(r, level4_));
    return _mm512_cvtepi32_epi8(r);
  }

  __m512 level1_, level2_, level3_, level4_;
  __m256i codes_;
};

struct ValueTable {
  explicit ValueTable(const float* table) : value(_mm512_loadu_ps(table)) {}
  __m512 value;
};

/// The 16 results of a block in one register, twice where they have 16 bits: then a word of which
/// the low four bits are a code looks up its result, whatever the next bit is.
template <class Out>
class BlockTable {
 public:
  BlockTable(const ValueTable& values, float absmax, Float via) {
    table_ = stored(Out(), round_16(via, _mm512_mul_ps(values.value, _mm512_set1_ps(absmax))));
  }

  void decode(const std::uint8_t* codes, typename Out::Storage* out) const {
    if constexpr (sizeof(typename Out::Storage) == 2) {
      const __m512i wide = _mm512_cvtepu8_epi32(load_128(codes));
      const __m512i index =
          _mm512_or_si512(_mm512_srli_epi32(wide, 4), _mm512_slli_epi32(wide, 16));
      _mm512_storeu_si512(out, _mm512_permutexvar_epi16(index, table_));
    } else {
      decode_16(load_128(codes), out);
      decode_16(_mm_srli_si128(load_128(codes), 8), out + 16);
    }
  }

 private:
  void decode_16(__m128i codes, float* out) const {
    const __m512i wide = _mm512_cvtepu8_epi64(codes);
    const __m512i index = _mm512_or_si512(_mm512_srli_epi64(wide, 4), _mm512_slli_epi64(wide, 32));
    _mm512_storeu_ps(out, _mm512_permutexvar_ps(index, _mm512_castsi512_ps(table_)));
  }

  static __m512i stored(F32, __m512 x) { return _mm512_castps_si512(x); }
  static __m512i stored(Bf16, __m512 x) { return twice(_mm512_cvtepi32_epi16(bf16_bits(x))); }
  static __m512i stored(F16, __m512 x) { return twice(f16_bits(x)); }
  static __m512i twice(__m256i half) { return _mm512_broadcast_i64x4(half); }

  __m512i table_;
};

}  // namespace
}  // namespace lorapp::kernels
