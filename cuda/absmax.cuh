// What 4-bit weights stand for: the values of codes, and the scale of a block, plain or nested.
#pragma once

#include "kernels/cuda_launch.hpp"
#include "kernels/float16.hpp"

#include <lorapp/quant/double_quant.hpp>

#include <cuda_runtime.h>

namespace lorapp::kernels::cuda {

/// Sixteen values of the host's, to travel to device code.
inline CodeValues code_values(const float* value) {
  CodeValues values;
  for (int i = 0; i < 16; ++i) values.value[i] = value[i];
  return values;
}

/// Whether the blocks of DequantizeRowsArgs and its like can be counted in 32 bits, which divide
/// fast, and their nested ones too. Launchers see to it.
template <class Args>
bool blocks_fit(const Args& args) {
  constexpr std::int64_t kMost = 0xffffffff;
  return is_blocksize(args.blocksize) && args.rows * args.columns / args.blocksize <= kMost &&
         (args.absmax != nullptr || (args.nested_blocksize > 0 && args.nested_blocksize <= kMost));
}

/// What memory has of a block's scale: its bits, or its nested code. It can be on its way while
/// others are worked with.
template <class Args>
__device__ std::uint32_t stored_absmax(const Args& args, std::uint32_t block) {
  return args.absmax != nullptr ? bits_of(args.absmax[block]) : args.nested[block];
}

/// The scale that stored_absmax has read.
template <class Args>
__device__ float absmax_from(const Args& args, std::uint32_t stored, std::uint32_t block) {
  if (args.absmax != nullptr) return from_bits(stored);
  const std::uint32_t outer = block / static_cast<std::uint32_t>(args.nested_blocksize);
  return decode8(args.map, static_cast<std::uint8_t>(stored), args.nested_absmax[outer],
                 args.offset);
}

/// The scale of a block of them.
template <class Args>
__device__ float absmax_of(const Args& args, std::uint32_t block) {
  return absmax_from(args, stored_absmax(args, block), block);
}

}  // namespace lorapp::kernels::cuda
