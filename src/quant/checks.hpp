// What the 4-bit formats accept, in one place.
// Private to src/quant.
#pragma once

#include "quant/float_type.hpp"

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace lorapp::detail {

/// The block sizes of bitsandbytes.
inline bool is_valid_blocksize(std::int64_t n) {
  return n >= 32 && n <= 4096 && (n & (n - 1)) == 0;
}

/// The dtypes of weights that can be quantized, and that a quantized weight can stand for.
inline bool is_quantizable(at::ScalarType dtype) { return has_float_type(dtype); }

/// The dtypes that products are computed in, and that weights are dequantized to.
inline bool is_compute_dtype(at::ScalarType dtype) {
  return is_quantizable(dtype) || dtype == at::kDouble;
}

}  // namespace lorapp::detail
