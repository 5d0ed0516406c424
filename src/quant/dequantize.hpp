// Dequantization of a part of a weight into given memory, for products that work panel by panel.
// Private to src/quant.
#pragma once

#include <lorapp/quant/quantized_tensor.hpp>

#include "kernels/table.hpp"

namespace lorapp::detail {

/// `numel` elements from block `first_block` on, rounded to w.dtype(), then converted; on torch's
/// threads. The range must lie within w; w is on the CPU.
void dequantize_range(const QuantizedTensor& w,
                      std::int64_t first_block,
                      std::int64_t numel,
                      kernels::Float out_type,
                      void* out);

}  // namespace lorapp::detail
