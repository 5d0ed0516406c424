// The vocabulary of product.inl for AVX2 and FMA: vectors of 8 floats.
// Included by kernels_avx2.cpp alone.
#pragma once

#include "kernels/simd_avx2.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kLanes = 8;
constexpr int kTileVectors = 2;   // one panel
constexpr int kTileRows = 6;      // 12 sums, two columns of weights, one factor: 15 of 16 registers
constexpr int kVectorPanels = 2;  // of a product with one row

using Pairs = void;
constexpr bool kHasPairs = false;

using Vec = __m256;
using Words = __m256i;

Vec zero() { return _mm256_setzero_ps(); }
Vec splat(float x) { return _mm256_set1_ps(x); }
Vec load(const float* p) { return _mm256_loadu_ps(p); }
void store(float* p, Vec x) { _mm256_storeu_ps(p, x); }
Vec mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
/// b where one of them is NaN.
Vec max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
/// b where one of them is NaN.
Vec min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
/// out[i] = the sum of x[i].
void store_sums(float* out, const Vec (&x)[4]) {
  const __m256 sum = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));
}
/// x of magnitude below 2^22 to the nearest whole number.
Vec round_whole(Vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/// x · 2^n for whole n from -150 to 130.
Vec times_power_of_two(Vec x, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
  const __m256i second =
      _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23);
  return mul(mul(x, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
/// a · b + c
Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

template <class T>
Vec load_as(const typename T::Storage* p) {
  return load_8(T(), p);
}
// The low halves of eight lanes.
__m128i narrow(__m256i x) {
  const __m256i packed = _mm256_packus_epi32(x, x);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(packed, _MM_SHUFFLE(3, 1, 2, 0)));
}
void store_as(F32, float* p, Vec x) { store(p, x); }
void store_as(Bf16, std::uint16_t* p, Vec x) {
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  const __m256i bits = _mm256_blendv_epi8(bf16_bits(x), _mm256_set1_epi32(0x7fc0), nan);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(bits));
}
void store_as(F16, std::uint16_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/// x rounded to `type`, never NaN.
template <Float type>
Vec round_finite(Vec x) {
  return round_8(type, x);
}

Words load_words(const void* p) { return load_256(p); }
void store_words(std::uint32_t* p, Words x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
Words words_of(Vec x) { return _mm256_castps_si256(x); }
Vec vec_of(Words x) { return _mm256_castsi256_ps(x); }
/// x in the lanes where all bits of `keep` are set, y where none is.
Vec select(Words keep, Vec x, Vec y) { return _mm256_blendv_ps(y, x, vec_of(keep)); }
Vec splat_word(const std::uint32_t* p) { return vec_of(_mm256_set1_epi32(static_cast<int>(*p))); }
/// One row's word in all lanes, which are the columns of one line.
Words row_words(const std::uint8_t* p) {
  int word;
  __builtin_memcpy(&word, p, 4);
  return _mm256_set1_epi32(word);
}
Words shift_right(Words x, int bits) { return _mm256_srli_epi32(x, bits); }
/// 8 bytes, one a lane.
Words load_bytes(const std::uint8_t* p) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
/// Lane i holds i · factor + first.
Words lane_products(std::uint32_t factor, std::uint32_t first) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_add_epi32(_mm256_mullo_epi32(lanes, _mm256_set1_epi32(static_cast<int>(factor))),
                          _mm256_set1_epi32(static_cast<int>(first)));
}
/// The floats at these places behind `base`.
Vec gather(const float* base, Words index) { return _mm256_i32gather_ps(base, index, 4); }
/// Lane c shifted by the bit of column c (packed_weight.hpp).
Words shift_to_columns(Words x) {
  return _mm256_srlv_epi32(x, _mm256_setr_epi32(0, 16, 4, 20, 8, 24, 12, 28));
}

/// The sum of all lanes, of halves, quarters and so on.
float lane_sum(Vec x) {
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
  return _mm_cvtss_f32(sum);
}

/// rows[i].lane[j] and rows[j].lane[i] change places.
void transpose(Vec (&rows)[kLanes]) {
  __m256 pairs[8], quads[8];
  for (int i = 0; i < 8; i += 2) {
    pairs[i] = _mm256_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm256_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int h = 0; h < 2; ++h) {
      const __m256d a = _mm256_castps_pd(pairs[i + h]), b = _mm256_castps_pd(pairs[i + 2 + h]);
      quads[i + 2 * h] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      quads[i + 2 * h + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    }
  }
  for (int j = 0; j < 4; ++j) {
    rows[j] = _mm256_permute2f128_ps(quads[j], quads[4 + j], 0x20);
    rows[4 + j] = _mm256_permute2f128_ps(quads[j], quads[4 + j], 0x31);
  }
}

/// Sixteen values, looked up by the low four bits of each lane.
struct Lookup {
  explicit Lookup(const float* values)
      : low(_mm256_loadu_ps(values)), high(_mm256_loadu_ps(values + 8)) {}
  Vec operator()(Words index) const {
    const __m256 a = _mm256_permutevar8x32_ps(low, index);
    const __m256 b = _mm256_permutevar8x32_ps(high, index);
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  __m256 low, high;
};

void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace lorapp::kernels
