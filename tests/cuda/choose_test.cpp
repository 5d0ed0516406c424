// Which kernel multiplies what on which GPU.
#include "kernels/cuda_choose.hpp"

#include <doctest/doctest.h>

#include <initializer_list>

using namespace lorapp::kernels::cuda;

namespace {
constexpr Gpu kH200{90, 132};
constexpr Gpu kRtx4090{89, 128};
constexpr Gpu kT4{75, 40};
}  // namespace

TEST_SUITE("choice of CUDA kernels") {
  TEST_CASE(
      "a token is multiplied with packed weights, a batch of training with dequantized ones") {
    for (const Gpu& gpu : {kH200, kRtx4090}) {
      for (const std::int64_t rows : {1024, 4096, 6144, 14336, 28672}) {
        CHECK(choose_product(gpu, 1, rows, 4096, 64) == ProductKind::small);
        CHECK(choose_product(gpu, 8, rows, 4096, 64) == ProductKind::small);
        CHECK(choose_product(gpu, 65, rows, 4096, 64) == ProductKind::dequantize);
        CHECK(choose_product(gpu, 8192, rows, 4096, 64) == ProductKind::dequantize);
      }
    }
  }

  TEST_CASE("the more rows a weight has for each processor, the more tokens are few") {
    std::int64_t before = 0;
    for (const std::int64_t rows : {1024, 4224, 8448, 16896, 25344}) {
      std::int64_t most = 0;
      while (choose_product(kH200, most + 1, rows, 4096, 64) == ProductKind::small) ++most;
      CHECK(most > before);
      before = most;
    }
    CHECK(before == 64);
  }

  TEST_CASE(
      "what the small kernel cannot read is dequantized: old GPUs, ragged columns, small blocks") {
    CHECK(choose_product(kT4, 1, 4096, 4096, 64) == ProductKind::dequantize);
    CHECK(choose_product(kH200, 1, 4096, 4096 + 32, 64) == ProductKind::dequantize);
    CHECK(choose_product(kH200, 1, 4096, 4096, 32) == ProductKind::dequantize);
    CHECK(choose_product(kH200, 1, std::int64_t{1} << 31, 64, 64) == ProductKind::dequantize);
    CHECK(choose_product(kH200, 1, 64, std::int64_t{1} << 25, 64) == ProductKind::dequantize);
    CHECK(choose_product(kH200, 1, 4096, 4096 + 64, 4096) == ProductKind::dequantize);
  }
}
