// The vocabulary of kernels.inl for AVX2, FMA and F16C: 32 elements (16 bytes of codes) at a time.
// Included by kernels_avx2.cpp alone; bit-equal to simd_scalar.hpp.
#pragma once

#include "kernels/float16.hpp"
#include "kernels/table.hpp"

#include <immintrin.h>

namespace lorapp::kernels {
namespace {

constexpr int kGroup = 32;

__m256i load_256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
__m128i load_128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }

// 8 elements as f32.
__m256 load_8(F32, const float* x) { return _mm256_loadu_ps(x); }
__m256 load_8(Bf16, const std::uint16_t* x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_128(x)), 16));
}
__m256 load_8(F16, const std::uint16_t* x) { return _mm256_cvtph_ps(load_128(x)); }

// To nearest even. Finite or infinite, not NaN: the kernels leave those to the scalar code.
__m256i bf16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  return _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff)),
                           16);
}
__m256i f16_bits(__m256 x) {
  return _mm256_cvtepu16_epi32(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

__m256 round_8(Float type, __m256 x) {
  switch (type) {
    case Float::bf16:
      return _mm256_castsi256_ps(_mm256_slli_epi32(bf16_bits(x), 16));
    case Float::f16:
      return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    case Float::f32:
      break;
  }
  return x;
}

// Magnitudes order as their bits do, infinity and NaN last: the maximum is taken over integers.
float max_abs_f32(const float* x, std::int64_t n) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  __m256i a = _mm256_setzero_si256(), b = a;
  for (std::int64_t i = 0; i < n; i += 16) {
    a = _mm256_max_epu32(a, _mm256_and_si256(load_256(x + i), mask));
    b = _mm256_max_epu32(b, _mm256_and_si256(load_256(x + i + 8), mask));
  }
  a = _mm256_max_epu32(a, b);
  __m128i m = _mm_max_epu32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(1, 0, 3, 2)));
  m = _mm_max_epu32(m, _mm_shuffle_epi32(m, _MM_SHUFFLE(2, 3, 0, 1)));
  return from_bits(static_cast<std::uint32_t>(_mm_cvtsi128_si32(m)));
}
std::uint16_t max_magnitude_16(const std::uint16_t* x, std::int64_t n) {
  const __m256i mask = _mm256_set1_epi16(0x7fff);
  __m256i a = _mm256_setzero_si256(), b = a;
  for (std::int64_t i = 0; i < n; i += 32) {
    a = _mm256_max_epu16(a, _mm256_and_si256(load_256(x + i), mask));
    b = _mm256_max_epu16(b, _mm256_and_si256(load_256(x + i + 16), mask));
  }
  a = _mm256_max_epu16(a, b);
  const __m128i m = _mm_max_epu16(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
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
/// far. Lanes hold minus the rank, since a comparison gives -1: its low bits, modulo 4 or 8, index
/// the tables, which are ordered to match.
class Encoder {
 public:
  explicit Encoder(const Codebook4& book) {
    const float* t = book.threshold;
    level1_ = _mm256_set1_ps(t[7]);
    level2_ = _mm256_setr_ps(t[3], t[11], t[11], t[11], t[3], t[11], t[11], t[11]);
    level3_ = _mm256_setr_ps(t[1], t[13], t[9], t[5], t[1], t[13], t[9], t[5]);
    level4_ = _mm256_setr_ps(t[0], t[14], t[12], t[10], t[8], t[6], t[4], t[2]);
    codes_ = _mm256_broadcastsi128_si256(load_128(book.code));
  }

  template <class T>
  void encode(const typename T::Storage* x, float scale, std::uint8_t* codes) const {
    const __m256 s = _mm256_set1_ps(scale);
    const __m256i r0 = minus_rank(_mm256_mul_ps(load_8(T(), x), s));
    const __m256i r1 = minus_rank(_mm256_mul_ps(load_8(T(), x + 8), s));
    const __m256i r2 = minus_rank(_mm256_mul_ps(load_8(T(), x + 16), s));
    const __m256i r3 = minus_rank(_mm256_mul_ps(load_8(T(), x + 24), s));
    // 32 bytes; packing works within 128-bit lanes, so the order is restored in groups of four.
    const __m256i lanes =
        _mm256_packs_epi16(_mm256_packs_epi32(r0, r1), _mm256_packs_epi32(r2, r3));
    const __m256i ranks = _mm256_abs_epi8(
        _mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    const __m256i nibbles = _mm256_shuffle_epi8(codes_, ranks);
    // first · 16 + second
    const __m256i bytes = _mm256_maddubs_epi16(nibbles, _mm256_set1_epi16(0x0110));
    const __m128i packed =
        _mm_packus_epi16(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), packed);
  }

 private:
  static __m256i above(__m256 v, __m256 threshold) {
    return _mm256_castps_si256(_mm256_cmp_ps(v, threshold, _CMP_GT_OQ));
  }
  static __m256i next(__m256i bits, __m256i bit) {
    return _mm256_add_epi32(_mm256_add_epi32(bits, bits), bit);
  }
  __m256i minus_rank(__m256 v) const {
    __m256i r = above(v, level1_);
    r = next(r, above(v, _mm256_permutevar_ps(level2_, r)));
    r = next(r, above(v, _mm256_permutevar_ps(level3_, r)));
    return next(r, above(v, _mm256_permutevar8x32_ps(level4_, r)));
  }

  __m256 level1_, level2_, level3_, level4_;
  __m256i codes_;
};

/// The 16 values, in the order that BlockTable's transposition wants: codes 0-3, 8-11 | 4-7, 12-15.
struct ValueTable {
  explicit ValueTable(const float* value)
      : a(_mm256_setr_m128(_mm_loadu_ps(value), _mm_loadu_ps(value + 8))),
        b(_mm256_setr_m128(_mm_loadu_ps(value + 4), _mm_loadu_ps(value + 12))) {}
  __m256 a, b;
};

/// The 16 results of a block, one register for each of their bytes; a code looks up each byte with
/// a shuffle, and interleaving puts the bytes together again.
template <class Out>
class BlockTable {
 public:
  BlockTable(const ValueTable& values, float absmax, Float via) {
    const __m256 scale = _mm256_set1_ps(absmax);
    const __m256 a = round_8(via, _mm256_mul_ps(values.a, scale));
    const __m256 b = round_8(via, _mm256_mul_ps(values.b, scale));
    const __m256i bytes_a = group_bytes(stored(a));
    const __m256i bytes_b = group_bytes(stored(b));
    split(_mm256_unpacklo_epi32(bytes_a, bytes_b), plane_[0], plane_[1]);
    if constexpr (kBytes == 4) split(_mm256_unpackhi_epi32(bytes_a, bytes_b), plane_[2], plane_[3]);
  }

  void decode(const std::uint8_t* codes, typename Out::Storage* out) const {
    if constexpr (kBytes == 2) {
      // Bytes of codes 0-3, 8-11 in the low lane: interleaving then gives whole ordered vectors.
      const __m256i index = nibbles(_mm_shuffle_epi32(load_128(codes), _MM_SHUFFLE(3, 1, 2, 0)));
      const __m256i low = _mm256_shuffle_epi8(plane_[0], index);
      const __m256i high = _mm256_shuffle_epi8(plane_[1], index);
      store(out, _mm256_unpacklo_epi8(low, high));
      store(out + 16, _mm256_unpackhi_epi8(low, high));
    } else {
      const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
      const __m256i index = nibbles(_mm_shuffle_epi8(load_128(codes), order));
      const __m256i b0 = _mm256_shuffle_epi8(plane_[0], index);
      const __m256i b1 = _mm256_shuffle_epi8(plane_[1], index);
      const __m256i b2 = _mm256_shuffle_epi8(plane_[2], index);
      const __m256i b3 = _mm256_shuffle_epi8(plane_[3], index);
      const __m256i low0 = _mm256_unpacklo_epi8(b0, b1), low1 = _mm256_unpackhi_epi8(b0, b1);
      const __m256i high0 = _mm256_unpacklo_epi8(b2, b3), high1 = _mm256_unpackhi_epi8(b2, b3);
      store(out, _mm256_unpacklo_epi16(low0, high0));
      store(out + 8, _mm256_unpackhi_epi16(low0, high0));
      store(out + 16, _mm256_unpacklo_epi16(low1, high1));
      store(out + 24, _mm256_unpackhi_epi16(low1, high1));
    }
  }

 private:
  static constexpr int kBytes = sizeof(typename Out::Storage);

  static __m256i stored(__m256 x) { return stored(Out(), x); }
  static __m256i stored(F32, __m256 x) { return _mm256_castps_si256(x); }
  static __m256i stored(Bf16, __m256 x) { return bf16_bits(x); }
  static __m256i stored(F16, __m256 x) { return f16_bits(x); }

  // In each lane: byte 0 of its four elements, then byte 1 of the four, …
  static __m256i group_bytes(__m256i x) {
    return _mm256_shuffle_epi8(
        x, _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11,
                            15,  //
                            0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
  // From halves (codes 0-7, 8-15) of two planes to each plane in both lanes.
  static void split(__m256i halves, __m256i& first, __m256i& second) {
    const __m256i planes = _mm256_permute4x64_epi64(halves, _MM_SHUFFLE(3, 1, 2, 0));
    first = _mm256_permute2x128_si256(planes, planes, 0x00);
    second = _mm256_permute2x128_si256(planes, planes, 0x11);
  }
  // 16 bytes of codes → 32 bytes of nibbles, the high one first.
  static __m256i nibbles(__m128i codes) {
    const __m256i wide = _mm256_cvtepu8_epi16(codes);
    return _mm256_and_si256(_mm256_or_si256(_mm256_slli_epi16(wide, 8), _mm256_srli_epi16(wide, 4)),
                            _mm256_set1_epi8(15));
  }
  static void store(void* p, __m256i x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }

  __m256i plane_[kBytes];
};

}  // namespace
}  // namespace lorapp::kernels
