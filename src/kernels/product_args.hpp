// Arguments of the products with a packed 4-bit weight; what each kernel computes.
// Products sum in f32, whatever the operands are rounded to.
#pragma once

#include "kernels/packed_weight.hpp"

#include <cstdint>

namespace lorapp::kernels {

/// The summed dimension is cut into blocks of this many 32-bit words: one f32 each, or two bf16.
inline constexpr std::int64_t kDepthWords = 192;

/// How the products of an instruction set cut their operands: left operands into tiles of at most
/// `tile_rows` rows, those of Float::f32, as low-rank terms are, into tiles of `f32_tile_rows`;
/// columns into tiles of `tile_columns`. `word_elements` of the summed dimension are in a word, and
/// words are multiplied `step_words` at a time: pack_rows pads with zeros to whole steps.
struct ProductShape {
  std::int64_t tile_rows;
  std::int64_t f32_tile_rows;
  std::int64_t tile_columns;
  std::int64_t word_elements;
  std::int64_t step_words;
};

/// The number of blocks of a summed dimension.
LORAPP_HD std::int64_t depth_blocks(const ProductShape& shape, std::int64_t depth) {
  const std::int64_t elements = kDepthWords * shape.word_elements;
  return (depth + elements - 1) / elements;
}

/// Rows in tiles that are as equal as can be.
struct RowTiles {
  std::int64_t tiles;
  std::int64_t height;
};

/// `rows` rows cut into tiles of at most `most` rows.
LORAPP_HD RowTiles row_tiles(std::int64_t rows, std::int64_t most) {
  const std::int64_t tiles = (rows + most - 1) / most;
  return {tiles, tiles > 0 ? (rows + tiles - 1) / tiles : 0};
}

/// Rows of sums that a product of `rows` rows needs: of its tiles and of its low-rank term's.
LORAPP_HD std::int64_t sum_rows(const ProductShape& shape, std::int64_t rows) {
  const RowTiles own = row_tiles(rows, shape.tile_rows);
  const RowTiles f32 = row_tiles(rows, shape.f32_tile_rows);
  const std::int64_t padded = own.tiles * own.height, f32_padded = f32.tiles * f32.height;
  return padded < f32_padded ? f32_padded : padded;
}

/// Rows of x into tiles: out[block][tile][row of the tile][word of the block]. Rows beyond the last
/// and elements from `depth` to `padded_depth` are zero. A call packs the tiles [first_tile,
/// last_tile).
struct PackRowsArgs {
  const void* x;
  Float x_type;
  std::int64_t stride;  // elements from row to row
  std::int64_t rows;
  std::int64_t depth;
  std::int64_t padded_depth;  // of the product: depth, or up to the rows of whole panels
  Float round;                // of the product
  std::int64_t first_tile;
  std::int64_t last_tile;
  std::uint32_t* out;
};

/// A matrix in memory, row by row: of floats, or of 8-bit codes with one absmax a row (int8.hpp),
/// whose values are f32.
struct DenseMatrix {
  const void* data;
  Float type;
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t stride;            // elements from row to row
  const float* absmax = nullptr;  // [rows]: then `data` are std::int8_t, and `type` is not read
};

/// y[:, begin:end] = A · Wᵀ, or A · W if `transposed`, plus A₂ · B₂, plus bias. W is packed or
/// dense. A is packed; the summed dimension is W's columns, or its rows if transposed, up to the
/// rows of whole panels where W is packed.
struct ProductArgs {
  const std::uint32_t* a;
  std::int64_t rows;
  const PackedWeight* w;     // or null
  const DenseMatrix* dense;  // where `w` is null
  bool transposed;
  const std::uint32_t* a2;  // [rows, rank], packed as for Float::f32; null: nothing is added
  const float* b2;          // [rank, columns of y], with these distances of elements
  std::int64_t rank;
  std::int64_t b2_row_stride;
  std::int64_t b2_column_stride;
  std::int64_t begin, end;  // columns of y; `begin` begins a tile
  Float round;              // what weights, and then results, are rounded to
  const float* bias;        // [columns of y], or null
  void* y;                  // [rows, columns of y]
  Float y_type;
  std::int64_t y_stride;
  std::uint32_t* block;      // [kDepthWords · tile_columns], aligned to 64 bytes
  float* sums;               // [sum_rows · sum_columns], aligned to 64 bytes
  std::int64_t sum_columns;  // columns that are summed at a time, a multiple of tile_columns
};

/// Integers of fix_rows are 128 · high part + low part.
inline constexpr int kPartBits = 7;
inline constexpr std::int32_t kPartStep = 1 << kPartBits;

/// A span of x in integers of 15 bits. Its product with codes' values, which are moved up to be
/// positive, is (128 · H + L) · scale: H begins with `high` and sums products of high parts, L
/// with `low` and sums those of a high and a low part.
struct FixedSpan {
  std::int32_t high;
  std::int32_t low;
  float scale;
};

/// Rows of x in integers.
struct FixedRows {
  const std::int8_t* parts;  // [rows][columns / 8][16], in an order of the table's own
  const FixedSpan* spans;    // [rows][columns / span]
};

/// x → FixedRows.
struct FixRowsArgs {
  const float* x;  // [rows, columns], rounded to bf16
  std::int64_t rows;
  std::int64_t columns;
  std::int64_t span;  // at most kMaxFixedSpan
  std::int8_t* parts;
  FixedSpan* spans;
};

/// Longer sums of parts would not fit into 32 bits.
inline constexpr std::int64_t kMaxFixedSpan = 32768;

/// y[:, begin:end] = x · Wᵀ + bias for at most kMaxVectorRows rows. Of a packed W, `begin` and
/// `end` are whole panels, and value · absmax is not rounded; nor are codes times their scale.
struct VectorProductArgs {
  const float* x;  // [rows, columns of W], f32, one row behind the other
  std::int64_t rows;
  const PackedWeight* w;     // or null
  const DenseMatrix* dense;  // where `w` is null
  std::int64_t begin, end;   // rows of W
  const float* bias;
  float* y;  // [rows, rows of W]
  std::int64_t y_stride;
  const FixedRows* fixed = nullptr;  // x, where a packed W is multiplied in integers
};

inline constexpr std::int64_t kMaxVectorRows = 4;

}  // namespace lorapp::kernels
