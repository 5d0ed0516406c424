// The layout of 4-bit weights that products read: panels of 16 rows, lines of 64 bytes.
// A line holds 16 rows x 8 columns, one 32-bit word a row; a block's scales of 16 rows lie
// together.
#pragma once

#include "kernels/table.hpp"

#include <lorapp/host_device.hpp>

#include <cstdint>

namespace lorapp::kernels {

inline constexpr std::int64_t kPanelRows = 16;
inline constexpr std::int64_t kLineColumns = 8;
inline constexpr std::int64_t kLineBytes = 64;

/// Columns of a weight that can be packed are a multiple of this, and so is a scale's span.
inline constexpr std::int64_t kMinSpan = 32;

/// The bit at which the code of column c % 8 begins in a row's word: the even columns in the low
/// half, the odd ones in the high half, so that a word shifted by 4j holds columns 2j and 2j + 1.
LORAPP_HD int code_shift(std::int64_t column) {
  const int c = static_cast<int>(column & 7);
  return (c >> 1) * 4 + (c & 1) * 16;
}

/// Four bytes of a row in the file's order, columns 8i to 8i + 7 with the earlier in the high
/// nibble, as the row's word of a line; and back. `bytes` has the first byte lowest.
LORAPP_HD std::uint32_t packed_word(std::uint32_t bytes) {
  std::uint32_t even = bytes >> 4 & 0x0f0f0f0fu, odd = bytes & 0x0f0f0f0fu;
  even = (even | even >> 4) & 0x00ff00ffu;
  odd = (odd | odd >> 4) & 0x00ff00ffu;
  return ((even | even >> 8) & 0xffffu) | ((odd | odd >> 8) & 0xffffu) << 16;
}
LORAPP_HD std::uint32_t unpacked_word(std::uint32_t word) {
  std::uint32_t even = word & 0xffffu, odd = word >> 16;
  even = (even | even << 8) & 0x00ff00ffu;
  odd = (odd | odd << 8) & 0x00ff00ffu;
  even = (even | even << 4) & 0x0f0f0f0fu;
  odd = (odd | odd << 4) & 0x0f0f0f0fu;
  return even << 4 | odd;
}

LORAPP_HD std::int64_t panels_of(std::int64_t rows) { return (rows + kPanelRows - 1) / kPanelRows; }

/// Bytes of all lines, and one line more, of which kernels read the first bytes beside the last
/// line. Rows beyond the last are there, as code 0 with scale 0.
LORAPP_HD std::int64_t line_bytes(std::int64_t rows, std::int64_t columns) {
  return (panels_of(rows) * (columns / kLineColumns) + 1) * kLineBytes;
}

/// Scales: [panel][column / span][16].
LORAPP_HD std::int64_t scale_count(std::int64_t rows, std::int64_t columns, std::int64_t span) {
  return panels_of(rows) * (columns / span) * kPanelRows;
}

/// A packed weight, [rows, columns]. The scales are f32, or 8-bit codes that are expanded as they
/// are read.
struct PackedWeight {
  const std::uint8_t* lines;
  const float* absmax;         // [panel][column / span][16]; null where they are nested
  const std::uint8_t* nested;  // the same in 8 bits
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t span;   // columns that share a scale
  const float* value;  // [16]
  Float via;           // what value · absmax is rounded to
  // Of nested scales: code c of row n and column k stands for
  // map[c] · nested_absmax[(n · columns + k) / blocksize / nested_blocksize] + offset.
  const float* map;
  const float* nested_absmax;
  float offset;
  std::int64_t blocksize;
  std::int64_t nested_blocksize;
};

}  // namespace lorapp::kernels
