// A comparison of a kernel table with the scalar rules, before the first use.
// Private to src/quant.
#pragma once

#include "kernels/table.hpp"

#include <lorapp/export.hpp>

namespace lorapp::detail {

/// Multiplies small ragged matrices by the table's products with weights in 4 and in 8 bits,
/// forward and transposed, with every rounding and one to three rows as well, and compares with
/// sums over single elements in double. Throws Error on the first result that is not one that
/// rounding explains: a miscompiled kernel, or a CPU that does not do what it says, must not go on
/// to train.
LORAPP_API void check_products(const kernels::KernelTable& table);

/// Runs the table's other kernels but the codecs, in float32 and bfloat16, on sizes that fill no
/// vector, and compares with the scalar table. Throws Error as check_products.
LORAPP_API void check_rows(const kernels::KernelTable& table);

/// How their messages end.
inline constexpr const char* kAnotherIsa =
    "; set LORAPP_FORCE_ISA to another instruction set (scalar always works), and please report "
    "this";

}  // namespace lorapp::detail
