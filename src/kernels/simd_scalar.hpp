// The vocabulary of kernels.inl in plain C++: the reference that every other one must equal bit by
// bit. Included by kernels_scalar.cpp alone.
#pragma once

#include "kernels/float16.hpp"
#include "kernels/table.hpp"

namespace lorapp::kernels {
namespace {

constexpr int kGroup = 2;  // elements that encode and decode take at a time: whole bytes of codes

/// The largest magnitude of n elements; not finite if one of them is not.
template <class T>
float max_abs(const typename T::Storage* x, std::int64_t n) {
  std::uint32_t largest = 0;  // magnitudes order as their bits do, infinity and NaN last
  for (std::int64_t i = 0; i < n; ++i) {
    const std::uint32_t magnitude = bits_of(T::load(x[i])) & 0x7fffffffu;
    if (magnitude > largest) largest = magnitude;
  }
  return from_bits(largest);
}

class Encoder {
 public:
  explicit Encoder(const Codebook4& book) : book_(book) {}

  template <class T>
  void encode(const typename T::Storage* x, float scale, std::uint8_t* codes) const {
    *codes =
        pack_nibbles(encode4(book_, T::load(x[0]) * scale), encode4(book_, T::load(x[1]) * scale));
  }

 private:
  const Codebook4& book_;
};

struct ValueTable {
  explicit ValueTable(const float* table) : value(table) {}
  const float* value;
};

template <class Out>
class BlockTable {
 public:
  BlockTable(const ValueTable& values, float absmax, Float via) {
    for (int i = 0; i < 16; ++i) table_[i] = Out::store(round_to(via, values.value[i] * absmax));
  }

  void decode(const std::uint8_t* codes, typename Out::Storage* out) const {
    out[0] = table_[unpack_nibble(*codes, false)];
    out[1] = table_[unpack_nibble(*codes, true)];
  }

 private:
  typename Out::Storage table_[16];
};

}  // namespace
}  // namespace lorapp::kernels
