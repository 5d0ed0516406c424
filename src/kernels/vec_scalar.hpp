// The vocabulary of product.inl in plain C++: a vector is an array of 8 floats.
// Included by kernels_scalar.cpp alone.
#pragma once

#include "kernels/packed_weight.hpp"
#include "kernels/rows_args.hpp"
#include "kernels/simd_scalar.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kLanes = 8;
constexpr int kTileVectors = 2;
constexpr int kTileRows = 2;
constexpr int kVectorPanels = 2;  // of a product with one row

using Pairs = void;
constexpr bool kHasPairs = false;

struct Vec {
  float lane[kLanes];
};
struct Words {
  std::uint32_t lane[kLanes];
};

template <class F>
Vec each(F f) {
  Vec x;
  for (int i = 0; i < kLanes; ++i) x.lane[i] = f(i);
  return x;
}

Vec splat(float x) {
  return each([&](int) { return x; });
}
Vec zero() { return splat(0.0f); }
Vec load(const float* p) {
  return each([&](int i) { return p[i]; });
}
void store(float* p, const Vec& x) {
  for (int i = 0; i < kLanes; ++i) p[i] = x.lane[i];
}
Vec mul(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
Vec add(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
/// out[i] = the sum of x[i].
void store_sums(float* out, const Vec (&x)[4]) {
  for (int i = 0; i < 4; ++i) {
    out[i] = 0.0f;
    for (int j = 0; j < kLanes; ++j) out[i] += x[i].lane[j];
  }
}
/// a · b + c; two roundings, unlike the vector instruction.
Vec fma(const Vec& a, const Vec& b, const Vec& c) {
  return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
}

Vec sub(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
Vec div(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
Vec sqrt_of(const Vec& x) {
  return each([&](int i) { return __builtin_sqrtf(x.lane[i]); });
}
/// b where one of them is NaN.
Vec max_of(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
Vec min_of(const Vec& a, const Vec& b) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}

template <class T>
Vec load_as(const typename T::Storage* p) {
  return each([&](int i) { return T::load(p[i]); });
}
template <class T>
void store_as(T, typename T::Storage* p, const Vec& x) {
  for (int i = 0; i < kLanes; ++i) p[i] = T::store(x.lane[i]);
}

/// x rounded to `type`.
template <Float type>
Vec round_finite(const Vec& x) {
  return each([&](int i) { return round_to(type, x.lane[i]); });
}

Words load_words(const void* p) {
  Words x;
  __builtin_memcpy(x.lane, p, sizeof x.lane);
  return x;
}
void store_words(std::uint32_t* p, const Words& x) { __builtin_memcpy(p, x.lane, sizeof x.lane); }
bool same_words(const Words& a, const Words& b) {
  bool same = true;
  for (int i = 0; i < kLanes; ++i) same = same && a.lane[i] == b.lane[i];
  return same;
}
Words words_of(const Vec& x) { return load_words(x.lane); }
Vec vec_of(const Words& x) {
  Vec y;
  __builtin_memcpy(y.lane, x.lane, sizeof y.lane);
  return y;
}
/// x in the lanes where all bits of `keep` are set, y where none is.
Vec select(const Words& keep, const Vec& x, const Vec& y) {
  return each([&](int i) { return keep.lane[i] != 0 ? x.lane[i] : y.lane[i]; });
}
Vec splat_word(const std::uint32_t* p) { return splat(from_bits(*p)); }
/// One row's word in all lanes, which are the columns of one line.
Words row_words(const std::uint8_t* p) {
  std::uint32_t word;
  __builtin_memcpy(&word, p, 4);
  Words x;
  for (int i = 0; i < kLanes; ++i) x.lane[i] = word;
  return x;
}
Words shift_right(const Words& x, int bits) {
  Words y;
  for (int i = 0; i < kLanes; ++i) y.lane[i] = x.lane[i] >> bits;
  return y;
}
Words shift_left(const Words& x, int bits) {
  Words y;
  for (int i = 0; i < kLanes; ++i) y.lane[i] = x.lane[i] << bits;
  return y;
}
/// 8 bytes, one a lane.
Words load_bytes(const std::uint8_t* p) {
  Words x;
  for (int i = 0; i < kLanes; ++i) x.lane[i] = p[i];
  return x;
}
/// Lane i holds i · factor + first.
Words lane_products(std::uint32_t factor, std::uint32_t first) {
  Words x;
  for (int i = 0; i < kLanes; ++i) x.lane[i] = static_cast<std::uint32_t>(i) * factor + first;
  return x;
}
/// The floats at these places behind `base`.
Vec gather(const float* base, const Words& index) {
  return each([&](int i) { return base[index.lane[i]]; });
}
/// Lane c shifted by the bit of column c (packed_weight.hpp).
Words shift_to_columns(const Words& x) {
  Words y;
  for (int i = 0; i < kLanes; ++i) y.lane[i] = x.lane[i] >> code_shift(i);
  return y;
}

/// The sum of all lanes, of halves, quarters and so on.
float lane_sum(const Vec& x) {
  const float* l = x.lane;
  return ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]));
}

/// rows[i].lane[j] and rows[j].lane[i] change places.
void transpose(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float x = rows[i].lane[j];
      rows[i].lane[j] = rows[j].lane[i];
      rows[j].lane[i] = x;
    }
  }
}

/// Sixteen values, looked up by the low four bits of each lane.
struct Lookup {
  explicit Lookup(const float* values) : table(values) {}
  Vec operator()(const Words& index) const {
    return each([&](int i) { return table[index.lane[i] & 15u]; });
  }
  const float* table;
};

/// Neighbouring elements, twice kLanes, in an order that store_two undoes.
struct Two {
  Vec first, second;
};
template <class T>
Two load_two(T, const typename T::Storage* p) {
  return {load_as<T>(p), load_as<T>(p + kLanes)};
}
template <class T>
void store_two(T, typename T::Storage* p, const Two& x) {
  store_as(T(), p, x.first);
  store_as(T(), p + kLanes, x.second);
}
/// Words of neighbouring elements into the order of load_two.
template <class T>
void order_words(T, Words&, Words&) {}

/// Sums of the squares of floats, 16 side by side, in double. Squares are exact there, so that all
/// instruction sets give the same bits.
struct SquareSums {
  void add(const float* x) {
    for (int i = 0; i < 16; ++i) sum[i] += static_cast<double>(x[i]) * x[i];
  }
  void get(double* out) const { __builtin_memcpy(out, sum, sizeof sum); }
  double sum[16] = {};
};

/// The random words of the elements of pairs `first`, …: the halves of keyed_bits, low half first.
Words random_words(std::uint64_t key, std::uint64_t first) {
  Words x;
  for (int i = 0; i < kLanes; i += 2) {
    const std::uint64_t bits = keyed_bits(key, first + static_cast<std::uint64_t>(i / 2));
    x.lane[i] = static_cast<std::uint32_t>(bits);
    x.lane[i + 1] = static_cast<std::uint32_t>(bits >> 32);
  }
  return x;
}
/// x where words are at least `threshold`, else 0.
Vec keep(const Words& words, std::uint32_t threshold, const Vec& x) {
  return each([&](int i) { return words.lane[i] >= threshold ? x.lane[i] : 0.0f; });
}

void prefetch(const void*) {}

}  // namespace
}  // namespace lorapp::kernels
