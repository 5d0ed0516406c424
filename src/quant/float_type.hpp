// The kernels' name of an element type.
// Private to src/.
#pragma once

#include "kernels/table.hpp"

#include <c10/core/ScalarType.h>

namespace lorapp::detail {

/// Of float32, bfloat16 or float16.
inline kernels::Float float_type(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return kernels::Float::bf16;
  if (dtype == at::kHalf) return kernels::Float::f16;
  return kernels::Float::f32;
}

}  // namespace lorapp::detail
