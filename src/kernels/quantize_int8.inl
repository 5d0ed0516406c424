// Rows of weights to 8 bits. After a vocabulary (vec_<isa>.hpp) and kernels.inl.
#pragma once

#include "kernels/table.hpp"

namespace lorapp::kernels {
namespace {

template <class T>
std::int64_t quantize_int8_rows(const QuantizeInt8Args& args) {
  const std::int64_t groups = args.columns / kGroup * kGroup;
  const std::int64_t vectors = args.columns / kLanes * kLanes;
  for (std::int64_t row = 0; row < args.rows; ++row) {
    const auto* x = static_cast<const typename T::Storage*>(args.x) + row * args.stride;
    std::int8_t* codes = args.codes + row * args.columns;
    std::uint32_t largest = bits_of(max_abs<T>(x, groups));
    for (std::int64_t i = groups; i < args.columns; ++i) {
      const std::uint32_t magnitude = bits_of(T::load(x[i])) & 0x7fffffffu;
      if (magnitude > largest) largest = magnitude;
    }
    const float absmax = from_bits(largest);
    if (!is_finite(absmax)) {
      return row * args.columns + first_not_finite<T>(x, 0, args.columns);
    }
    args.absmax[row] = absmax;
    const float scale = int8_scale(absmax);
    if (!is_finite(scale)) {
      for (std::int64_t i = 0; i < args.columns; ++i) {
        codes[i] = encode_small_int8(T::load(x[i]), absmax);
      }
      continue;
    }
    for (std::int64_t i = 0; i < vectors; i += kLanes) {
      store_as(Int8(), codes + i, mul(load_as<T>(x + i), splat(scale)));
    }
    for (std::int64_t i = vectors; i < args.columns; ++i) {
      codes[i] = encode_int8(T::load(x[i]), scale);
    }
  }
  return -1;
}

std::int64_t quantize_int8(const QuantizeInt8Args& args) {
  count_call();
  switch (args.x_type) {
    case Float::f32:
      return quantize_int8_rows<F32>(args);
    case Float::bf16:
      return quantize_int8_rows<Bf16>(args);
    case Float::f16:
      return quantize_int8_rows<F16>(args);
  }
  return -1;
}

}  // namespace
}  // namespace lorapp::kernels
