// The vocabulary of product.inl for AVX2 and FMA: vectors of 8 floats.
// Included by kernels_avx2.cpp alone.
#pragma once

#include "kernels/rows_args.hpp"
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
/// out[i] = the sum of x[i].
void store_sums(float* out, const Vec (&x)[4]) {
  const __m256 sum = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1)));
}
/// a · b + c
Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }

Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
Vec sqrt_of(Vec x) { return _mm256_sqrt_ps(x); }
/// b where one of them is NaN.
Vec max_of(Vec a, Vec b) { return _mm256_max_ps(a, b); }
Vec min_of(Vec a, Vec b) { return _mm256_min_ps(a, b); }

__m256 load_8(Int8, const std::int8_t* p) {
  const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
}
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
void store_as(Int8, std::int8_t* p, Vec x) {
  const __m256i whole = _mm256_cvtps_epi32(x);
  const __m128i pairs =
      _mm_packs_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(pairs, pairs));
}

/// x rounded to `type`. A NaN is one of arithmetic, or has a zero low half: others may become
/// numbers in bf16.
template <Float type>
Vec round_finite(Vec x) {
  return round_8(type, x);
}

Words load_words(const void* p) { return load_256(p); }
void store_words(std::uint32_t* p, Words x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x);
}
bool same_words(Words a, Words b) { return _mm256_movemask_epi8(_mm256_cmpeq_epi32(a, b)) == -1; }
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
Words shift_left(Words x, int bits) { return _mm256_slli_epi32(x, bits); }
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

/// Neighbouring elements, twice kLanes, in an order that store_two undoes: of bf16 the even and the
/// odd ones. A NaN that is stored is one of arithmetic, or has a zero low half.
struct Two {
  Vec first, second;
};
template <class T>
Two load_two(T, const typename T::Storage* p) {
  return {load_as<T>(p), load_as<T>(p + kLanes)};
}
Two load_two(Bf16, const std::uint16_t* p) {
  const Words words = load_words(p);
  return {vec_of(_mm256_slli_epi32(words, 16)),
          vec_of(_mm256_and_si256(words, _mm256_set1_epi32(-0x10000)))};
}
template <class T>
void store_two(T, typename T::Storage* p, const Two& x) {
  store_as(T(), p, x.first);
  store_as(T(), p + kLanes, x.second);
}
void store_two(Bf16, std::uint16_t* p, const Two& x) {
  const __m256i second = words_of(x.second);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(second, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(second, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i both = _mm256_blend_epi16(bf16_bits(x.first), up, 0xaa);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), both);
}
/// Words of neighbouring elements into the order of load_two.
template <class T>
void order_words(T, Words&, Words&) {}
void order_words(Bf16, Words& a, Words& b) {
  const __m256 even = _mm256_shuffle_ps(vec_of(a), vec_of(b), _MM_SHUFFLE(2, 0, 2, 0));
  const __m256 odd = _mm256_shuffle_ps(vec_of(a), vec_of(b), _MM_SHUFFLE(3, 1, 3, 1));
  a = _mm256_permute4x64_epi64(words_of(even), _MM_SHUFFLE(3, 1, 2, 0));
  b = _mm256_permute4x64_epi64(words_of(odd), _MM_SHUFFLE(3, 1, 2, 0));
}

/// Sums of the squares of floats, 16 side by side, in double. Squares are exact there, so that all
/// instruction sets give the same bits.
struct SquareSums {
  void add(const float* x) {
    for (int i = 0; i < 4; ++i) {
      const __m256d wide = _mm256_cvtps_pd(_mm_loadu_ps(x + 4 * i));
      sum[i] = _mm256_fmadd_pd(wide, wide, sum[i]);
    }
  }
  void get(double* out) const {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(out + 4 * i, sum[i]);
  }
  __m256d sum[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(),
                    _mm256_setzero_pd()};
};

__m256i set_64(std::uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
// The low 64 bits of products.
__m256i mul_64(__m256i a, std::uint64_t b) {
  const __m256i low = _mm256_mul_epu32(a, set_64(b));
  const __m256i cross = _mm256_add_epi64(_mm256_mul_epu32(_mm256_srli_epi64(a, 32), set_64(b)),
                                         _mm256_mul_epu32(a, set_64(b >> 32)));
  return _mm256_add_epi64(low, _mm256_slli_epi64(cross, 32));
}
/// The random words of the elements of pairs `first`, …: the halves of keyed_bits, low half first.
Words random_words(std::uint64_t key, std::uint64_t first) {
  const auto step = [](std::uint64_t i) { return static_cast<long long>(i * kGoldenGamma); };
  __m256i x = _mm256_add_epi64(set_64((first + 1) * kGoldenGamma),
                               _mm256_setr_epi64x(0, step(1), step(2), step(3)));
  x = _mm256_xor_si256(x, set_64(key));
  x = mul_64(_mm256_xor_si256(x, _mm256_srli_epi64(x, 30)), kMixFactor1);
  x = mul_64(_mm256_xor_si256(x, _mm256_srli_epi64(x, 27)), kMixFactor2);
  return _mm256_xor_si256(x, _mm256_srli_epi64(x, 31));
}
/// x where words are at least `threshold`, else 0.
Vec keep(Words words, std::uint32_t threshold, Vec x) {
  const __m256i least = _mm256_set1_epi32(static_cast<int>(threshold));
  return _mm256_and_ps(x, vec_of(_mm256_cmpeq_epi32(_mm256_max_epu32(words, least), words)));
}

void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace lorapp::kernels
