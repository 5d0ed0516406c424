// The vocabulary of product.inl for AVX-512: vectors of 16 floats.
// Included by the AVX-512 files alone.
#pragma once

#include "kernels/rows_args.hpp"
#include "kernels/simd_avx512.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kLanes = 16;
constexpr int kTileVectors = 2;   // two panels
constexpr int kTileRows = 12;     // 24 sums, two columns of weights, one factor: 27 of 32 registers
constexpr int kVectorPanels = 4;  // of a product with one row

using Vec = __m512;
using Words = __m512i;

Vec zero() { return _mm512_setzero_ps(); }
Vec splat(float x) { return _mm512_set1_ps(x); }
Vec load(const float* p) { return _mm512_loadu_ps(p); }
void store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
/// out[i] = the sum of x[i].
void store_sums(float* out, const Vec (&x)[4]) {
  const __m512 a = add(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const __m512 b = add(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const __m512 sum = add(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(sum), _mm512_extractf32x8_ps(sum, 1));
  _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}
/// a · b + c
Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }

Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
Vec sqrt_of(Vec x) { return _mm512_sqrt_ps(x); }
/// b where one of them is NaN.
Vec max_of(Vec a, Vec b) { return _mm512_max_ps(a, b); }
Vec min_of(Vec a, Vec b) { return _mm512_min_ps(a, b); }

__m512 load_16(Int8, const std::int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load_128(p)));
}
template <class T>
Vec load_as(const typename T::Storage* p) {
  return load_16(T(), p);
}
void store_as(F32, float* p, Vec x) { store(p, x); }
void store_as(Bf16, std::uint16_t* p, Vec x) {
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i bits = _mm512_mask_mov_epi32(bf16_bits(x), nan, _mm512_set1_epi32(0x7fc0));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(bits));
}
void store_as(F16, std::uint16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), f16_bits(x));
}
void store_as(Int8, std::int8_t* p, Vec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x)));
}

/// x rounded to `type`. A NaN is one of arithmetic, or has a zero low half: others may become
/// numbers in bf16.
template <Float type>
Vec round_finite(Vec x) {
  if constexpr (type == Float::bf16) {
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    return _mm512_castsi512_ps(_mm512_and_si512(up, _mm512_set1_epi32(-0x10000)));
  } else {
    return round_16(type, x);
  }
}

Words load_words(const void* p) { return load_512(p); }
void store_words(std::uint32_t* p, Words x) { _mm512_storeu_si512(p, x); }
bool same_words(Words a, Words b) { return _mm512_cmpneq_epi32_mask(a, b) == 0; }
Words words_of(Vec x) { return _mm512_castps_si512(x); }
Vec vec_of(Words x) { return _mm512_castsi512_ps(x); }
/// x in the lanes where all bits of `keep` are set, y where none is.
Vec select(Words keep, Vec x, Vec y) {
  return vec_of(_mm512_ternarylogic_epi32(keep, words_of(x), words_of(y), 0xca));
}
Vec splat_word(const std::uint32_t* p) { return vec_of(_mm512_set1_epi32(static_cast<int>(*p))); }
/// One row's words of two lines, each in the lanes of its columns.
Words row_words(const std::uint8_t* p) {
  int low, high;
  __builtin_memcpy(&low, p, 4);
  __builtin_memcpy(&high, p + 64, 4);
  return _mm512_mask_set1_epi32(_mm512_set1_epi32(low), 0xff00, high);
}
Words shift_right(Words x, int bits) { return _mm512_srli_epi32(x, static_cast<unsigned>(bits)); }
Words shift_left(Words x, int bits) { return _mm512_slli_epi32(x, static_cast<unsigned>(bits)); }
/// 16 bytes, one a lane.
Words load_bytes(const std::uint8_t* p) { return _mm512_cvtepu8_epi32(load_128(p)); }
/// Lane i holds i · factor + first.
Words lane_products(std::uint32_t factor, std::uint32_t first) {
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return _mm512_add_epi32(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(factor))),
                          _mm512_set1_epi32(static_cast<int>(first)));
}
/// The floats at these places behind `base`.
Vec gather(const float* base, Words index) { return _mm512_i32gather_ps(index, base, 4); }
/// Lane c shifted by the bit of column c (packed_weight.hpp).
Words shift_to_columns(Words x) {
  return _mm512_srlv_epi32(x, _mm512_setr_epi32(0, 16, 4, 20, 8, 24, 12, 28,  //
                                                0, 16, 4, 20, 8, 24, 12, 28));
}

/// The sum of all lanes, of halves, quarters and so on.
float lane_sum(Vec x) { return _mm512_reduce_add_ps(x); }

/// rows[i].lane[j] and rows[j].lane[i] change places.
void transpose(Vec (&rows)[kLanes]) {
  __m512 pairs[16], quads[16];
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    for (int h = 0; h < 2; ++h) {
      const __m512d a = _mm512_castps_pd(pairs[i + h]), b = _mm512_castps_pd(pairs[i + 2 + h]);
      quads[i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      quads[i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  }
  // quads[4i + j]: rows 4i to 4i + 3 of the columns j, 4 + j, 8 + j, 12 + j.
  for (int j = 0; j < 4; ++j) {
    const __m512 a = _mm512_shuffle_f32x4(quads[j], quads[4 + j], 0x44);
    const __m512 b = _mm512_shuffle_f32x4(quads[8 + j], quads[12 + j], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(quads[j], quads[4 + j], 0xee);
    const __m512 d = _mm512_shuffle_f32x4(quads[8 + j], quads[12 + j], 0xee);
    rows[j] = _mm512_shuffle_f32x4(a, b, 0x88);
    rows[4 + j] = _mm512_shuffle_f32x4(a, b, 0xdd);
    rows[8 + j] = _mm512_shuffle_f32x4(c, d, 0x88);
    rows[12 + j] = _mm512_shuffle_f32x4(c, d, 0xdd);
  }
}

/// Sixteen values, looked up by the low four bits of each lane.
struct Lookup {
  explicit Lookup(const float* values) : table(_mm512_loadu_ps(values)) {}
  Vec operator()(Words index) const { return _mm512_permutexvar_ps(index, table); }
  __m512 table;
};

#if defined(LORAPP_TILES) || defined(__AVX512BF16__)
/// Two values rounded to bf16, whose lower halves are zero, in a word.
Words bf16_pair(Vec first, Vec second) {
  return _mm512_or_si512(_mm512_srli_epi32(words_of(first), 16), words_of(second));
}
#endif

#if defined(LORAPP_TILES)
// kernels/tiles_amx.hpp
constexpr bool kHasPairs = true;
#elif defined(__AVX512BF16__)
/// A mode of product.inl: two bf16 a word. Products of bf16 are exact in f32; a pair of them is
/// added to the sum without rounding between (VDPBF16PS). Subnormal operands count as zero.
struct Pairs {
  static constexpr int kElements = 2;
  static constexpr int kMostRows = kTileRows;
  static constexpr int kStepWords = 1;
  static Words pack(Vec first, Vec second) { return bf16_pair(first, second); }
  static Vec multiply_add(const std::uint32_t* a, Words b, Vec sum) {
    const Words factor = _mm512_set1_epi32(static_cast<int>(*a));
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(factor), reinterpret_cast<__m512bh>(b));
  }
};
constexpr bool kHasPairs = true;
#else
using Pairs = void;
constexpr bool kHasPairs = false;
#endif

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
  return {vec_of(_mm512_slli_epi32(words, 16)),
          vec_of(_mm512_and_si512(words, _mm512_set1_epi32(-0x10000)))};
}
template <class T>
void store_two(T, typename T::Storage* p, const Two& x) {
  store_as(T(), p, x.first);
  store_as(T(), p + kLanes, x.second);
}
// The upper half is x as bf16, to nearest even; the lower one is left over.
__m512i bf16_above(Vec x) {
  const __m512i bits = words_of(x);
  const __mmask16 odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x10000));
  const __m512i up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
  return _mm512_mask_sub_epi32(up, odd, up, _mm512_set1_epi32(-1));
}
void store_two(Bf16, std::uint16_t* p, const Two& x) {
  const __m512i low = _mm512_srli_epi32(bf16_above(x.first), 16);
  _mm512_storeu_si512(p, _mm512_mask_blend_epi16(0xaaaaaaaau, low, bf16_above(x.second)));
}
/// Words of neighbouring elements into the order of load_two.
template <class T>
void order_words(T, Words&, Words&) {}
void order_words(Bf16, Words& a, Words& b) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512i first = _mm512_permutex2var_epi32(a, even, b);
  b = _mm512_permutex2var_epi32(a, odd, b);
  a = first;
}

/// Sums of the squares of floats, 16 side by side, in double. Squares are exact there, so that all
/// instruction sets give the same bits.
struct SquareSums {
  void add(const float* x) {
    for (int i = 0; i < 2; ++i) {
      const __m512d wide = _mm512_cvtps_pd(_mm256_loadu_ps(x + 8 * i));
      sum[i] = _mm512_fmadd_pd(wide, wide, sum[i]);
    }
  }
  void get(double* out) const {
    for (int i = 0; i < 2; ++i) _mm512_storeu_pd(out + 8 * i, sum[i]);
  }
  __m512d sum[2] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
};

__m512i set_64(std::uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
/// The random words of the elements of pairs `first`, …: the halves of keyed_bits, low half first.
Words random_words(std::uint64_t key, std::uint64_t first) {
  const auto step = [](std::uint64_t i) { return static_cast<long long>(i * kGoldenGamma); };
  const __m512i steps =
      _mm512_setr_epi64(0, step(1), step(2), step(3), step(4), step(5), step(6), step(7));
  __m512i x = _mm512_add_epi64(set_64((first + 1) * kGoldenGamma), steps);
  x = _mm512_xor_si512(x, set_64(key));
  x = _mm512_mullo_epi64(_mm512_xor_si512(x, _mm512_srli_epi64(x, 30)), set_64(kMixFactor1));
  x = _mm512_mullo_epi64(_mm512_xor_si512(x, _mm512_srli_epi64(x, 27)), set_64(kMixFactor2));
  return _mm512_xor_si512(x, _mm512_srli_epi64(x, 31));
}
/// x where words are at least `threshold`, else 0.
Vec keep(Words words, std::uint32_t threshold, Vec x) {
  const __m512i least = _mm512_set1_epi32(static_cast<int>(threshold));
  return _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(words, least), x);
}

void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

}  // namespace
}  // namespace lorapp::kernels
