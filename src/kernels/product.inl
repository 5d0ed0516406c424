// Products with packed 4-bit weights, written once. An ISA file includes its vocabulary
// (vec_<isa>.hpp), then this. Blocks of weights are decoded into a buffer that stays in the cache,
// and every tile of rows is multiplied with it before the next block is decoded.
#pragma once

#include "kernels/product_args.hpp"

#include <type_traits>

namespace lorapp::kernels {
namespace {

constexpr int kTileColumns = kLanes * kTileVectors;

// A mode says what a word of the operands holds. Singles: one f32, whatever it was rounded to.
struct Singles {
  static constexpr int kElements = 1;  // of the summed dimension
  static Words pack(Vec first, Vec) { return words_of(first); }
  static Vec multiply_add(const std::uint32_t* a, Words b, Vec sum) {
    return fma(splat_word(a), vec_of(b), sum);
  }
};

/// The mode of products whose operands are rounded to bf16.
using NativeBf16 = std::conditional_t<kHasPairs, Pairs, Singles>;

template <Float via, Float round>
Vec round_weight(Vec x) {
  if constexpr (via == Float::f32 || via == round) {
    return round_finite<round>(x);
  } else {
    return round_finite<round>(round_finite<via>(x));
  }
}

// The scales of a panel's rows at one column; expanded once for each span where they are nested.
class Scales {
 public:
  Scales() = default;
  explicit Scales(const PackedWeight& w) : w_(&w), spans_(w.columns / w.span) {
    if (w.absmax != nullptr) return;
    if ((w.nested_blocksize & (w.nested_blocksize - 1)) != 0) {
      nested_shift_ = -1;
    } else {
      while (std::int64_t{1} << nested_shift_ < w.nested_blocksize) ++nested_shift_;
    }
  }

  const float* at(std::int64_t panel, std::int64_t column) {
    const std::int64_t index = panel * spans_ + column / w_->span;
    if (w_->absmax != nullptr) return w_->absmax + index * kPanelRows;
    if (index != expanded_) expand(panel, column / w_->span, index);
    return buffer_;
  }

 private:
  void expand(std::int64_t panel, std::int64_t span, std::int64_t index) {
    const std::uint8_t* codes = w_->nested + index * kPanelRows;
    for (std::int64_t r = 0; r < kPanelRows; ++r) {
      const std::int64_t row = panel * kPanelRows + r;
      if (row >= w_->rows) {
        buffer_[r] = 0.0f;
        continue;
      }
      const std::int64_t block = (row * w_->columns + span * w_->span) / w_->blocksize;
      const std::int64_t outer =
          nested_shift_ >= 0 ? block >> nested_shift_ : block / w_->nested_blocksize;
      buffer_[r] = decode8(w_->map, codes[r], w_->nested_absmax[outer], w_->offset);
    }
    expanded_ = index;
  }

  const PackedWeight* w_ = nullptr;
  std::int64_t spans_ = 0;
  int nested_shift_ = 0;
  std::int64_t expanded_ = -1;
  float buffer_[kPanelRows];
};

// Rows of W as columns of the product: block[word][kTileColumns] of W's columns [k, k + depth).
template <class Mode, Float via, Float round>
void decode_rows(const PackedWeight& w,
                 std::int64_t first_row,
                 std::int64_t k,
                 std::int64_t depth,
                 std::uint32_t* block) {
  const Lookup lookup(w.value);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t panel = (first_row + v * kLanes) / kPanelRows;
    const std::int64_t lane = (first_row + v * kLanes) % kPanelRows;
    std::uint32_t* out = block + v * kLanes;
    if (panel >= panels_of(w.rows)) {
      for (std::int64_t i = 0; i < depth / Mode::kElements; ++i) {
        store_words(out + i * kTileColumns, words_of(zero()));
      }
      continue;
    }
    Scales scales(w);
    const std::uint8_t* line =
        w.lines + (panel * (w.columns / kLineColumns) + k / kLineColumns) * kLineBytes + lane * 4;
    for (std::int64_t begin = 0; begin < depth; begin += kMinSpan) {
      const Vec scale = load(scales.at(panel, k + begin) + lane);
      for (int l = 0; l < kMinSpan / kLineColumns; ++l, line += kLineBytes) {
        const Words words = load_words(line);
        for (int j = 0; j < 4; ++j) {
          const Vec even = mul(lookup(shift_right(words, 4 * j)), scale);
          const Vec odd = mul(lookup(shift_right(words, 4 * j + 16)), scale);
          const Vec a = round_weight<via, round>(even), b = round_weight<via, round>(odd);
          store_words(out, Mode::pack(a, b));
          out += kTileColumns;
          if constexpr (Mode::kElements == 1) {
            store_words(out, Mode::pack(b, a));
            out += kTileColumns;
          }
        }
      }
    }
  }
}

// Columns of W as columns of the product: block[word][kTileColumns] of the rows [n, n + depth) of
// W's panels.
template <class Mode, Float via, Float round>
void decode_columns(const PackedWeight& w,
                    std::int64_t first_column,
                    std::int64_t n,
                    std::int64_t depth,
                    std::uint32_t* block) {
  const Lookup lookup(w.value);
  const std::int64_t lines = w.columns / kLineColumns;
  Scales scales(w);
  for (std::int64_t panel = n / kPanelRows; panel < (n + depth) / kPanelRows; ++panel) {
    for (int v = 0; v < kTileVectors; ++v) {
      const std::int64_t column = first_column + v * kLanes;
      const float* scale = scales.at(panel, column);
      const std::uint8_t* words = w.lines + (panel * lines + column / kLineColumns) * kLineBytes;
      std::uint32_t* out =
          block + (panel * kPanelRows - n) / Mode::kElements * kTileColumns + v * kLanes;
      const auto row = [&](int r) {
        const Words codes = shift_to_columns(row_words(words + 4 * r));
        return round_weight<via, round>(mul(lookup(codes), splat(scale[r])));
      };
      for (int r = 0; r < kPanelRows; r += Mode::kElements, out += kTileColumns) {
        const Vec first = row(r);
        store_words(out, Mode::pack(first, Mode::kElements == 1 ? first : row(r + 1)));
      }
    }
  }
}

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

// Adds A₂ · B₂ to the sums of one tile of columns.
void add_low_rank(const ProductArgs& args, RowTiles tiles, std::int64_t column, float* sums) {
  const TileFn tile = tile_of_height<Singles>(tiles.height);
  const std::int64_t columns = args.end - column < kTileColumns ? args.end - column : kTileColumns;
  for (std::int64_t k = 0; k < args.rank; k += kDepthWords) {
    const std::int64_t words = k + kDepthWords < args.rank ? kDepthWords : args.rank - k;
    for (std::int64_t i = 0; i < words; ++i) {
      const float* from = args.b2 + (k + i) * args.b2_stride + column;
      for (std::int64_t c = 0; c < kTileColumns; ++c) {
        args.block[i * kTileColumns + c] = c < columns ? bits_of(from[c]) : 0;
      }
    }
    const std::uint32_t* a = args.a2 + k * tiles.tiles * tiles.height;
    const std::int64_t size = tiles.height * kTileColumns;
    for (std::int64_t t = 0; t < tiles.tiles; ++t) {
      tile(a + t * kDepthWords * tiles.height, args.block, words, sums + t * size, true);
    }
  }
}

template <class R, class Y>
void round_and_store(typename Y::Storage* y, Vec x) {
  typename R::Storage rounded[kLanes];
  store_as(R(), rounded, x);
  store_as(Y(), y, load_as<R>(rounded));
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
      round_and_store<R, Y>(y + c, x);
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

template <class Mode, Float via, class R>
void run_product(const ProductArgs& args) {
  constexpr Float round = R::kFloat;
  const PackedWeight& w = *args.w;
  const RowTiles tiles = row_tiles(args.rows, kTileRows);
  const TileFn tile = tile_of_height<Mode>(tiles.height);
  const std::int64_t depth = args.transposed ? panels_of(w.rows) * kPanelRows : w.columns;
  const std::int64_t tile_sums = tiles.height * kTileColumns;
  constexpr std::int64_t kBlock = kDepthWords * Mode::kElements;

  for (std::int64_t begin = args.begin; begin < args.end; begin += args.sum_columns) {
    const std::int64_t end =
        begin + args.sum_columns < args.end ? begin + args.sum_columns : args.end;
    const std::uint32_t* a = args.a;
    for (std::int64_t k = 0; k < depth; k += kBlock) {
      const std::int64_t block_depth = k + kBlock < depth ? kBlock : depth - k;
      float* sums = args.sums;
      for (std::int64_t c = begin; c < end; c += kTileColumns, sums += tiles.tiles * tile_sums) {
        if (args.transposed) {
          decode_columns<Mode, via, round>(w, c, k, block_depth, args.block);
        } else {
          decode_rows<Mode, via, round>(w, c, k, block_depth, args.block);
        }
        for (std::int64_t t = 0; t < tiles.tiles; ++t) {
          tile(a + t * tiles.height * kDepthWords, args.block, block_depth / Mode::kElements,
               sums + t * tile_sums, k > 0);
        }
      }
      a += tiles.tiles * tiles.height * kDepthWords;
    }
    float* sums = args.sums;
    for (std::int64_t c = begin; c < end; c += kTileColumns, sums += tiles.tiles * tile_sums) {
      if (args.a2 != nullptr) add_low_rank(args, tiles, c, sums);
      finish_columns<R>(args, sums, c);
    }
  }
}

template <class Mode, class R>
void run_product(const ProductArgs& args) {
  switch (args.w->via) {
    case Float::f32:
      return run_product<Mode, Float::f32, R>(args);
    case Float::bf16:
      return run_product<Mode, Float::bf16, R>(args);
    case Float::f16:
      return run_product<Mode, Float::f16, R>(args);
  }
}

template <class T, class R>
void pack_rows(const PackRowsArgs& args, std::int64_t elements) {
  const RowTiles tiles = row_tiles(args.rows, kTileRows);
  const std::int64_t block_elements = kDepthWords * elements;
  // In pairs a word is two bf16, else one f32.
  const auto put = [&](std::uint32_t* out, std::int64_t i, Vec x) {
    if (elements == 2) {
      store_as(Bf16(), reinterpret_cast<std::uint16_t*>(out) + i, x);
    } else {
      round_and_store<R, F32>(reinterpret_cast<float*>(out) + i, x);
    }
  };
  std::uint32_t* block = args.out;
  for (std::int64_t k = 0; k < args.padded_depth; k += block_elements) {
    const std::int64_t end =
        k + block_elements < args.padded_depth ? k + block_elements : args.padded_depth;
    for (std::int64_t row = args.first_tile * tiles.height; row < args.last_tile * tiles.height;
         ++row) {
      const auto* x = static_cast<const typename T::Storage*>(args.x) + row * args.stride;
      std::uint32_t* out = block + row * kDepthWords;
      for (std::int64_t i = k; i < end; i += kLanes) {
        const std::int64_t left = row < args.rows ? args.depth - i : 0;
        if (left >= kLanes) {
          put(out, i - k, load_as<T>(x + i));
          continue;
        }
        float rest[kLanes];
        for (std::int64_t j = 0; j < kLanes; ++j) rest[j] = j < left ? T::load(x[i + j]) : 0.0f;
        put(out, i - k, load(rest));
      }
    }
    block += tiles.tiles * tiles.height * kDepthWords;
  }
}

template <class T>
void pack_rows(const PackRowsArgs& args, std::int64_t elements) {
  switch (args.round) {
    case Float::f32:
      return pack_rows<T, F32>(args, elements);
    case Float::bf16:
      return pack_rows<T, Bf16>(args, elements);
    case Float::f16:
      return pack_rows<T, F16>(args, elements);
  }
}

ProductShape product_shape(Float round) {
  return {kTileRows, kTileColumns, round == Float::bf16 ? NativeBf16::kElements : 1};
}

void pack_rows(const PackRowsArgs& args) {
  count_call();
  const std::int64_t elements = product_shape(args.round).word_elements;
  switch (args.x_type) {
    case Float::f32:
      return pack_rows<F32>(args, elements);
    case Float::bf16:
      return pack_rows<Bf16>(args, elements);
    case Float::f16:
      return pack_rows<F16>(args, elements);
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
