// Products with packed 4-bit weights, written once. An ISA file includes its vocabulary
// (vec_<isa>.hpp), then this. Blocks of weights are decoded into a buffer that stays in the cache,
// and every tile of rows is multiplied with it before the next block is decoded.
#pragma once

#include "kernels/product_args.hpp"
#include "kernels/weight_blocks.inl"

namespace lorapp::kernels {
namespace {

// sums[Rows][kTileColumns] (+)= Σ over words of a[Rows][word] · block[word][kTileColumns]; a row of
// `a` is kDepthWords long.
template <class Mode, int Rows>
void multiply_tile(const std::uint32_t* a,
                   const std::uint32_t* block,
                   std::int64_t words,
                   float* sums,
                   bool add_to_sums) {
  Vec sum[Rows][kTileVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = zero();
  }
  for (std::int64_t i = 0; i < words; ++i, ++a, block += kTileColumns) {
    Words b[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) b[v] = load_words(block + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      for (int v = 0; v < kTileVectors; ++v) {
        sum[r][v] = Mode::multiply_add(a + r * kDepthWords, b[v], sum[r][v]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kTileVectors; ++v, sums += kLanes) {
      store(sums, add_to_sums ? add(load(sums), sum[r][v]) : sum[r][v]);
    }
  }
}

using TileFn = void (*)(const std::uint32_t*, const std::uint32_t*, std::int64_t, float*, bool);

template <class Mode, int Rows = kTileRows>
TileFn tile_of_height(std::int64_t rows) {
  if constexpr (Rows == 1) {
    return &multiply_tile<Mode, 1>;
  } else {
    return rows == Rows ? &multiply_tile<Mode, Rows> : tile_of_height<Mode, Rows - 1>(rows);
  }
}

// The tiles of a product, multiplied in vector registers.
template <class Mode>
class RegisterTiles {
 public:
  explicit RegisterTiles(std::int64_t height) : tile_(tile_of_height<Mode>(height)) {}
  void operator()(const std::uint32_t* a,
                  const std::uint32_t* block,
                  std::int64_t words,
                  float* sums,
                  bool add_to_sums) const {
    tile_(a, block, words, sums, add_to_sums);
  }

 private:
  TileFn tile_;
};

// A mode may bring its own.
template <class Mode>
struct TilesOf {
  using Type = RegisterTiles<Mode>;
};
template <class Mode>
requires requires { typename Mode::Tiles; }
struct TilesOf<Mode> {
  using Type = typename Mode::Tiles;
};

// Adds A₂ · B₂ to the sums of one tile of columns.
void add_low_rank(const ProductArgs& args, std::int64_t column, float* sums) {
  const RowTiles tiles = row_tiles(args.rows, Singles::kMostRows);
  const RegisterTiles<Singles> multiply(tiles.height);
  const std::int64_t columns = args.end - column < kTileColumns ? args.end - column : kTileColumns;
  for (std::int64_t k = 0; k < args.rank; k += kDepthWords) {
    const std::int64_t words = k + kDepthWords < args.rank ? kDepthWords : args.rank - k;
    for (std::int64_t i = 0; i < words; ++i) {
      const float* from = args.b2 + (k + i) * args.b2_row_stride + column * args.b2_column_stride;
      for (std::int64_t c = 0; c < kTileColumns; ++c) {
        args.block[i * kTileColumns + c] =
            c < columns ? bits_of(from[c * args.b2_column_stride]) : 0;
      }
    }
    const std::uint32_t* a = args.a2 + k * tiles.tiles * tiles.height;
    const std::int64_t size = tiles.height * kTileColumns;
    for (std::int64_t t = 0; t < tiles.tiles; ++t) {
      multiply(a + t * kDepthWords * tiles.height, args.block, words, sums + t * size, true);
    }
  }
}

// One tile of columns of the finished sums: bias, rounding, the type of y.
template <class R, class Y>
void finish_columns(const ProductArgs& args, const float* sums, std::int64_t column) {
  const std::int64_t columns = args.end - column < kTileColumns ? args.end - column : kTileColumns;
  for (std::int64_t row = 0; row < args.rows; ++row, sums += kTileColumns) {
    auto* y = static_cast<typename Y::Storage*>(args.y) + row * args.y_stride + column;
    std::int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      Vec x = load(sums + c);
      if (args.bias != nullptr) x = add(x, load(args.bias + column + c));
      store_as(Y(), y + c, round_any<R>(x));
    }
    for (; c < columns; ++c) {
      const float b = args.bias != nullptr ? args.bias[column + c] : 0.0f;
      y[c] = Y::store(R::load(R::store(sums[c] + b)));
    }
  }
}

template <class R>
void finish_columns(const ProductArgs& args, const float* sums, std::int64_t column) {
  switch (args.y_type) {
    case Float::f32:
      return finish_columns<R, F32>(args, sums, column);
    case Float::bf16:
      return finish_columns<R, Bf16>(args, sums, column);
    case Float::f16:
      return finish_columns<R, F16>(args, sums, column);
  }
}

std::int64_t depth_of(const ProductArgs& args) {
  if (args.w != nullptr) {
    return args.transposed ? panels_of(args.w->rows) * kPanelRows : args.w->columns;
  }
  return args.transposed ? args.dense->rows : args.dense->columns;
}

template <class Mode>
constexpr ProductShape shape_of() {
  return {Mode::kMostRows, Singles::kMostRows, kTileColumns, Mode::kElements, Mode::kStepWords};
}

template <class Mode, class R>
void run_product(const ProductArgs& args) {
  constexpr ProductShape kShape = shape_of<Mode>();
  const RowTiles tiles = row_tiles(args.rows, kShape.tile_rows);
  const typename TilesOf<Mode>::Type multiply(tiles.height);
  const DecodeFn fill = source_of<Mode, R>(args);
  const std::int64_t depth = depth_of(args);
  const std::int64_t tile_sums = tiles.height * kTileColumns;
  const std::int64_t column_sums = sum_rows(kShape, args.rows) * kTileColumns;
  constexpr std::int64_t kBlock = kDepthWords * Mode::kElements;

  for (std::int64_t begin = args.begin; begin < args.end; begin += args.sum_columns) {
    const std::int64_t end =
        begin + args.sum_columns < args.end ? begin + args.sum_columns : args.end;
    const std::uint32_t* a = args.a;
    for (std::int64_t k = 0; k < depth; k += kBlock) {
      const std::int64_t block_depth = k + kBlock < depth ? kBlock : depth - k;
      const std::int64_t filled = (block_depth + Mode::kElements - 1) / Mode::kElements;
      const std::int64_t words =
          (filled + kShape.step_words - 1) / kShape.step_words * kShape.step_words;
      float* sums = args.sums;
      for (std::int64_t c = begin; c < end; c += kTileColumns, sums += column_sums) {
        fill(args, c, k, block_depth, args.block);
        for (std::int64_t i = filled * kTileColumns; i < words * kTileColumns; ++i) {
          args.block[i] = 0;
        }
        for (std::int64_t t = 0; t < tiles.tiles; ++t) {
          multiply(a + t * tiles.height * kDepthWords, args.block, words, sums + t * tile_sums,
                   k > 0);
        }
      }
      a += tiles.tiles * tiles.height * kDepthWords;
    }
    float* sums = args.sums;
    for (std::int64_t c = begin; c < end; c += kTileColumns, sums += column_sums) {
      if (args.a2 != nullptr) add_low_rank(args, c, sums);
      finish_columns<R>(args, sums, c);
    }
  }
}

template <class T, class R>
void pack_rows(const PackRowsArgs& args, const ProductShape& shape) {
  const RowTiles tiles = row_tiles(args.rows, shape.tile_rows);
  const std::int64_t block_elements = kDepthWords * shape.word_elements;
  const std::int64_t step = shape.step_words * shape.word_elements;
  const std::int64_t depth = (args.padded_depth + step - 1) / step * step;
  // In pairs a word is two bf16, else one f32.
  const auto put = [&](std::uint32_t* out, std::int64_t i, Vec x) {
    if (shape.word_elements == 2) {
      store_as(Bf16(), reinterpret_cast<std::uint16_t*>(out) + i, x);
    } else {
      store(reinterpret_cast<float*>(out) + i, round_any<R>(x));
    }
  };
  std::uint32_t* block = args.out;
  for (std::int64_t k = 0; k < depth; k += block_elements) {
    const std::int64_t end = k + block_elements < depth ? k + block_elements : depth;
    for (std::int64_t row = args.first_tile * tiles.height; row < args.last_tile * tiles.height;
         ++row) {
      const auto* x = static_cast<const typename T::Storage*>(args.x) + row * args.stride;
      std::uint32_t* out = block + row * kDepthWords;
      for (std::int64_t i = k; i < end; i += kLanes) {
        put(out, i - k, load_part<T>(x + i, row < args.rows ? args.depth - i : 0));
      }
    }
    block += tiles.tiles * tiles.height * kDepthWords;
  }
}

template <class T>
void pack_rows(const PackRowsArgs& args, const ProductShape& shape) {
  switch (args.round) {
    case Float::f32:
      return pack_rows<T, F32>(args, shape);
    case Float::bf16:
      return pack_rows<T, Bf16>(args, shape);
    case Float::f16:
      return pack_rows<T, F16>(args, shape);
  }
}

ProductShape product_shape(Float round) {
  return round == Float::bf16 ? shape_of<NativeBf16>() : shape_of<Singles>();
}

void pack_rows(const PackRowsArgs& args) {
  count_call();
  const ProductShape shape = product_shape(args.round);
  switch (args.x_type) {
    case Float::f32:
      return pack_rows<F32>(args, shape);
    case Float::bf16:
      return pack_rows<Bf16>(args, shape);
    case Float::f16:
      return pack_rows<F16>(args, shape);
  }
}

void product(const ProductArgs& args) {
  count_call();
  switch (args.round) {
    case Float::f32:
      return run_product<Singles, F32>(args);
    case Float::bf16:
      return run_product<NativeBf16, Bf16>(args);
    case Float::f16:
      return run_product<Singles, F16>(args);
  }
}

}  // namespace
}  // namespace lorapp::kernels
