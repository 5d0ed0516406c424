// The kernels' name of an element type.
// Private to src/.
#pragma once

#include "kernels/table.hpp"

#include <c10/core/ScalarType.h>

namespace lorapp::detail {

/// True for the types of elements that kernels know.
inline bool has_float_type(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
}

/// Of one of them.
inline kernels::Float float_type(at::ScalarType dtype) {
  if (dtype == at::kBFloat16) return kernels::Float::bf16;
  if (dtype == at::kHalf) return kernels::Float::f16;
  return kernels::Float::f32;
}

}  // namespace lorapp::detail
