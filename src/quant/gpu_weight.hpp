// A QuantizedTensor on a GPU as its kernels read it. Private to src/quant.
#pragma once

#include "kernels/cuda_launch.hpp"
#include "quant/float_type.hpp"

#include <lorapp/quant/quantized_tensor.hpp>

namespace lorapp::detail {

/// Codes, scales and tables; without rows, columns and what is made of them. Valid while w lives.
inline kernels::cuda::DequantizeRowsArgs gpu_codes(const QuantizedTensor& w) {
  const QuantizedTensor::Parts& parts = w.tables();
  kernels::cuda::DequantizeRowsArgs args{};
  args.codes = parts.codes.const_data_ptr<std::uint8_t>();
  args.blocksize = w.blocksize();
  args.value = w.code_values().data();
  args.nested_blocksize = 1;
  if (w.is_nested()) {
    args.nested = parts.absmax.const_data_ptr<std::uint8_t>();
    args.nested_absmax = parts.nested_absmax.const_data_ptr<float>();
    args.nested_blocksize = w.nested_blocksize();
    args.map = parts.nested_code.const_data_ptr<float>();
    args.offset = w.nested_offset();
  } else {
    args.absmax = parts.absmax.const_data_ptr<float>();
  }
  args.via = float_type(w.dtype());
  return args;
}

}  // namespace lorapp::detail
