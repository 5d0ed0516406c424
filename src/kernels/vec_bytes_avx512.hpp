// The vocabulary of fixed_point.inl for AVX512_VNNI: vectors of 64 bytes. After vec_avx512.hpp.
#pragma once

#include "kernels/product_args.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kFixedPanels = 4;     // of a product with one row or two
constexpr int kFewFixedPanels = 2;  // with more
constexpr int kHighPartBits = 8;

Words splat_integer(std::int32_t x) { return _mm512_set1_epi32(x); }
Words splat_bytes(const std::int8_t* p) {
  std::int32_t word;
  __builtin_memcpy(&word, p, 4);
  return splat_integer(word);
}
Vec floats_of(Words x) { return _mm512_cvtepi32_ps(x); }
/// 16 bytes, to be looked up by bytes below 16.
Words byte_table(const std::uint8_t* p) { return _mm512_broadcast_i32x4(load_128(p)); }
Words look_up_bytes(Words table, Words index) { return _mm512_shuffle_epi8(table, index); }
Words low_nibbles(Words x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }

/// To each lane of `sum` the products of its four bytes, those of `a` without a sign.
Words add_byte_products(Words sum, Words a, Words x) { return _mm512_dpbusd_epi32(sum, a, x); }
/// The same of two, where no byte of x or y is beyond ±64.
Words add_two_byte_products(Words sum, Words a, Words x, Words b, Words y) {
  return add_byte_products(add_byte_products(sum, a, x), b, y);
}

}  // namespace
}  // namespace lorapp::kernels
