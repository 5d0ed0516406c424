// The AMX products, with the tile registers of the instruction set's definition in plain C++, as
// one more table: they are tested on every CPU with AVX-512.
#define LORAPP_TILES
#include "kernels/vec_avx512.hpp"

#include <cstring>

namespace lorapp::kernels {
namespace {

struct EmulatedTiles {
  int rows[8] = {};
  int row_bytes[8] = {};
  alignas(64) unsigned char data[8][16][64] = {};

  void load_config(const void* config) {
    const auto* bytes = static_cast<const unsigned char*>(config);
    for (int i = 0; i < 8; ++i) {
      row_bytes[i] = bytes[16 + 2 * i] | bytes[17 + 2 * i] << 8;
      rows[i] = bytes[48 + i];
    }
    std::memset(data, 0, sizeof data);
  }
  // A tile that was not configured has no rows: what is done with it shows as a wrong result.
  void release() { *this = {}; }
  void zero(int t) { std::memset(data[t], 0, sizeof data[t]); }
  void load(int t, const void* base, long stride) {
    zero(t);
    for (int r = 0; r < rows[t]; ++r) {
      std::memcpy(data[t][r], static_cast<const char*>(base) + r * stride,
                  static_cast<std::size_t>(row_bytes[t]));
    }
  }
  void store(int t, void* base, long stride) const {
    for (int r = 0; r < rows[t]; ++r) {
      std::memcpy(static_cast<char*>(base) + r * stride, data[t][r],
                  static_cast<std::size_t>(row_bytes[t]));
    }
  }
  template <class T>
  T at(int t, int row, int column) const {
    T value;
    std::memcpy(&value, data[t][row] + sizeof(T) * static_cast<std::size_t>(column), sizeof(T));
    return value;
  }
  static float bf16(std::uint32_t half) {
    const std::uint32_t bits = half << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  void dot_bf16(int c, int a, int b) {
    for (int m = 0; m < rows[c]; ++m) {
      for (int n = 0; n < row_bytes[c] / 4; ++n) {
        float sum = at<float>(c, m, n);
        for (int k = 0; k < row_bytes[a] / 4; ++k) {
          const auto x = at<std::uint32_t>(a, m, k), y = at<std::uint32_t>(b, k, n);
          sum += bf16(x & 0xffff) * bf16(y & 0xffff);
          sum += bf16(x >> 16) * bf16(y >> 16);
        }
        std::memcpy(data[c][m] + 4 * n, &sum, 4);
      }
    }
  }
};

thread_local EmulatedTiles tiles;

}  // namespace
}  // namespace lorapp::kernels

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) tiles.load_config(config)
#define _tile_release() tiles.release()
#define _tile_zero(t) tiles.zero(t)
#define _tile_loadd(t, base, stride) tiles.load(t, base, stride)
#define _tile_stored(t, base, stride) tiles.store(t, base, stride)
#define _tile_dpbf16ps(c, a, b) tiles.dot_bf16(c, a, b)

#include "kernels/tiles_amx.hpp"

#include "kernels/kernels.inl"

#include "kernels/vector_product.inl"

namespace lorapp::kernels {
const KernelTable& table_amx_emulated();
}

LORAPP_DEFINE_KERNEL_TABLE(amx_emulated,
                           kAvx2 | kFma | kF16c | kAvx512f | kAvx512bw | kAvx512vl | kAvx512dq,
                           LORAPP_PRODUCTS)
