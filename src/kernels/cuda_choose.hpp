// Which CUDA kernel multiplies with 4-bit weights: a function of shapes and the GPU, tested on the
// host. C++17.
#pragma once

#include "kernels/tile_map.hpp"

namespace lorapp::kernels::cuda {

struct Gpu {
  int capability;  // 10 · major + minor: 90 for an H100 or H200
  int processors;  // streaming multiprocessors
};

enum class ProductKind {
  small,       // small_product
  dequantize,  // dequantize_4bit, then a product of dense matrices
};

/// A product of `tokens` rows of x with W [rows, columns] in bf16.
///
/// Weights that are read once and multiplied at once beat writing them down as long as tokens are
/// few: with more, every block of threads reads all of x again. How many are few depends on how
/// many blocks of 16 rows there are for each processor: the fewer, the longer tensor cores wait for
/// one block's weights. The steps are those that bitsandbytes measured for its kernel of this kind
/// (gemm_4bit, sm90), per blocks of 64 rows; this kernel's own are to be measured.
inline ProductKind choose_product(const Gpu& gpu,
                                  std::int64_t tokens,
                                  std::int64_t rows,
                                  std::int64_t columns,
                                  std::int64_t blocksize) {
  if (gpu.capability < 80 || !SmallProductMap{rows, columns}.fits(tokens, blocksize)) {
    return ProductKind::dequantize;
  }
  const std::int64_t blocks = ceil_div(rows, 64);
  const std::int64_t most = blocks >= 3 * gpu.processors   ? 64
                            : blocks >= 2 * gpu.processors ? 48
                            : blocks >= gpu.processors     ? 32
                            : 2 * blocks >= gpu.processors ? 16
                                                           : 8;
  return tokens <= most ? ProductKind::small : ProductKind::dequantize;
}

}  // namespace lorapp::kernels::cuda
