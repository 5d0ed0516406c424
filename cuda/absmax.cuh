// The scale of a block of 4-bit weights, plain or nested.
#pragma once

#include <lorapp/quant/double_quant.hpp>

#include <cuda_runtime.h>

namespace lorapp::kernels::cuda {

/// Of DequantizeRowsArgs and its like. Blocks are counted in 32 bits, which divide fast; launchers
/// see to it.
template <class Args>
__device__ float absmax_of(const Args& args, std::uint32_t block) {
  if (args.absmax != nullptr) return args.absmax[block];
  const std::uint32_t outer = block / static_cast<std::uint32_t>(args.nested_blocksize);
  return decode8(args.map, args.nested[block], args.nested_absmax[outer], args.offset);
}

}  // namespace lorapp::kernels::cuda
