// Products of bf16 pairs in the tile registers of AMX: 16 rows of A times 32 columns of the summed
// dimension times 16 columns of B in one instruction. After vec_avx512.hpp, with LORAPP_TILES.
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#pragma once

#include "kernels/product_args.hpp"

#include <immintrin.h>

namespace lorapp::kernels {
namespace {

/// A mode of product.inl: two bf16 a word. Products of bf16 are exact in f32; sums are rounded to
/// nearest even. Subnormal operands count as zero.
struct Pairs {
  static constexpr int kElements = 2;
  static constexpr int kMostRows =
      32;  // two tiles; the sums of 32 x 32 take four registers of eight
  static constexpr int kStepWords = 16;  // of one tile of A or B
  static Words pack(Vec first, Vec second) { return bf16_pair(first, second); }

  /// The tile registers, configured for products of `height` rows while this lives: sums in 0 to 3
  /// (upper left, upper right, lower left, lower right), A in 4 and 5, B in 6 and 7.
  class Tiles {
   public:
    explicit Tiles(std::int64_t height) : two_(height > kTileHeight) {
      struct alignas(64) Config {
        std::uint8_t palette = 1;
        std::uint8_t start_row = 0;
        std::uint8_t reserved[14] = {};
        std::uint16_t row_bytes[16] = {};
        std::uint8_t rows[16] = {};
      } config;
      static_assert(sizeof(Config) == 64);
      const auto upper = static_cast<std::uint8_t>(two_ ? kTileHeight : height);
      const auto lower = static_cast<std::uint8_t>(two_ ? height - kTileHeight : 0);
      const std::uint8_t rows[8] = {upper, upper, lower,      lower,
                                    upper, lower, kStepWords, kStepWords};
      for (int i = 0; i < 8; ++i) {
        config.rows[i] = rows[i];
        config.row_bytes[i] = rows[i] > 0 ? kStepWords * 4 : 0;
      }
      written_memory(&config);
      _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;

    /// As multiply_tile; `words` is a multiple of kStepWords.
    void operator()(const std::uint32_t* a,
                    const std::uint32_t* block,
                    std::int64_t words,
                    float* sums,
                    bool add_to_sums) const {
      if (two_) {
        multiply<true>(a, block, words, sums, add_to_sums);
      } else {
        multiply<false>(a, block, words, sums, add_to_sums);
      }
    }

   private:
    // GCC's intrinsics do not say what memory they read: all stores so far are to be done.
    static void written_memory(const void* p) { asm volatile("" : : "r"(p) : "memory"); }

    static constexpr std::int64_t kTileHeight = 16;
    static constexpr std::int64_t kRowBytesOfA = kDepthWords * 4, kRowBytesOfB = 2 * kLanes * 4;
    static_assert(kTileVectors == 2 && kLanes == kStepWords && kDepthWords % kStepWords == 0);

    template <bool two>
    static void multiply(const std::uint32_t* a,
                         const std::uint32_t* block,
                         std::int64_t words,
                         float* sums,
                         bool add_to_sums) {
      written_memory(block);
      float* lower = sums + kTileHeight * 2 * kLanes;
      if (add_to_sums) {
        _tile_loadd(0, sums, kRowBytesOfB);
        _tile_loadd(1, sums + kLanes, kRowBytesOfB);
        if constexpr (two) {
          _tile_loadd(2, lower, kRowBytesOfB);
          _tile_loadd(3, lower + kLanes, kRowBytesOfB);
        }
      } else {
        _tile_zero(0);
        _tile_zero(1);
        if constexpr (two) {
          _tile_zero(2);
          _tile_zero(3);
        }
      }
      for (std::int64_t i = 0; i < words; i += kStepWords) {
        _tile_loadd(6, block + i * 2 * kLanes, kRowBytesOfB);
        _tile_loadd(4, a + i, kRowBytesOfA);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, block + i * 2 * kLanes + kLanes, kRowBytesOfB);
        _tile_dpbf16ps(1, 4, 7);
        if constexpr (two) {
          _tile_loadd(5, a + kTileHeight * kDepthWords + i, kRowBytesOfA);
          _tile_dpbf16ps(2, 5, 6);
          _tile_dpbf16ps(3, 5, 7);
        }
      }
      _tile_stored(0, sums, kRowBytesOfB);
      _tile_stored(1, sums + kLanes, kRowBytesOfB);
      if constexpr (two) {
        _tile_stored(2, lower, kRowBytesOfB);
        _tile_stored(3, lower + kLanes, kRowBytesOfB);
      }
    }

    bool two_;
  };
};

}  // namespace
}  // namespace lorapp::kernels
