// The vocabulary of fixed_point.inl for AVX2: vectors of 32 bytes. After vec_avx2.hpp.
#pragma once

#include "kernels/product_args.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kFixedPanels = 1;     // of a product with one row or two
constexpr int kFewFixedPanels = 1;  // with more
/// Pairs of products of bytes are added in 16 bits, which hold 2 · 127 · 128.
constexpr int kHighPartBits = 7;

Words splat_integer(std::int32_t x) { return _mm256_set1_epi32(x); }
Words splat_bytes(const std::int8_t* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, 4);
  return splat_integer(word);
}
Vec floats_of(Words x) { return _mm256_cvtepi32_ps(x); }
/// 16 bytes, to be looked up by bytes below 16.
Words byte_table(const std::uint8_t* p) { return _mm256_broadcastsi128_si256(load_128(p)); }
Words look_up_bytes(Words table, Words index) { return _mm256_shuffle_epi8(table, index); }
Words low_nibbles(Words x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }

Words add_pairs(Words sum, __m256i pairs) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/// To each lane of `sum` the products of its four bytes, those of `a` without a sign.
Words add_byte_products(Words sum, Words a, Words x) {
  return add_pairs(sum, _mm256_maddubs_epi16(a, x));
}
/// The same of two, where no byte of x or y is beyond ±64: four products fit into 16 bits.
Words add_two_byte_products(Words sum, Words a, Words x, Words b, Words y) {
  return add_pairs(sum, _mm256_add_epi16(_mm256_maddubs_epi16(a, x), _mm256_maddubs_epi16(b, y)));
}

}  // namespace
}  // namespace lorapp::kernels
