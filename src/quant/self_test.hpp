// A comparison of a kernel table's products with the scalar rule, before the first use.
// Private to src/quant.
#pragma once

#include "kernels/table.hpp"

#include <lorapp/export.hpp>

namespace lorapp::detail {

/// Multiplies small ragged matrices by the table's products, forward and transposed, with every
/// rounding and one to three rows as well, and compares with sums over single elements in double.
/// Throws Error on the first result that is not one that rounding explains: a miscompiled kernel,
/// or a CPU that does not do what it says, must not go on to train.
LORAPP_API void check_products(const kernels::KernelTable& table);

}  // namespace lorapp::detail
