// Blocks of weights for product.inl: decoded from 4 bits, or copied from a dense matrix, into the
// order in which tiles read them. After a vocabulary (vec_<isa>.hpp).
#pragma once

#include "kernels/product_args.hpp"

#include <type_traits>

namespace lorapp::kernels {
namespace {

constexpr int kTileColumns = kLanes * kTileVectors;

// A mode says what a word of the operands holds, and how they are multiplied (ProductShape).
// Singles: one f32, whatever it was rounded to.
struct Singles {
  static constexpr int kElements = 1;  // of the summed dimension
  static constexpr int kMostRows = kTileRows;
  static constexpr int kStepWords = 1;
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
    for (std::uint32_t& block : outer_block_) block = ~0u;  // of none
    const bool shifts = (w.nested_blocksize & (w.nested_blocksize - 1)) == 0 &&
                        w.span == w.blocksize && w.rows * spans_ <= 0x7fffffff;
    while (shifts && std::int64_t{1} << shift_ < w.nested_blocksize) ++shift_;
    if (!shifts) shift_ = -1;
  }

  const float* at(std::int64_t panel, std::int64_t column) {
    const std::int64_t span = column / w_->span, index = panel * spans_ + span;
    if (w_->absmax != nullptr) return w_->absmax + index * kPanelRows;
    if (index == expanded_) return buffer_;
    expanded_ = index;
    if (shift_ >= 0 && (panel + 1) * kPanelRows <= w_->rows) {
      expand_by_vectors(panel, span, w_->nested + index * kPanelRows);
    } else {
      expand(panel, span, w_->nested + index * kPanelRows);
    }
    return buffer_;
  }

 private:
  // A whole panel whose blocks are spans: the number of a block is row · spans + span.
  void expand_by_vectors(std::int64_t panel, std::int64_t span, const std::uint8_t* codes) {
    const auto spans = static_cast<std::uint32_t>(spans_);
    const auto first = static_cast<std::uint32_t>(panel * kPanelRows * spans_ + span);
    for (int r = 0; r < kPanelRows; r += kLanes) {
      // Outer scales of a row are the same for many spans: looked up anew only where one differs.
      const Words block =
          shift_right(lane_products(spans, first + static_cast<std::uint32_t>(r) * spans), shift_);
      std::uint32_t* known = outer_block_ + r;
      if (!same_words(block, load_words(known))) {
        store_words(known, block);
        store(outer_ + r, gather(w_->nested_absmax, block));
      }
      const Vec value = gather(w_->map, load_bytes(codes + r));
      store(buffer_ + r, add(mul(value, load(outer_ + r)), splat(w_->offset)));
    }
  }

  void expand(std::int64_t panel, std::int64_t span, const std::uint8_t* codes) {
    for (std::int64_t r = 0; r < kPanelRows; ++r) {
      const std::int64_t row = panel * kPanelRows + r;
      if (row >= w_->rows) {
        buffer_[r] = 0.0f;
        continue;
      }
      const std::int64_t block = (row * w_->columns + span * w_->span) / w_->blocksize;
      buffer_[r] =
          decode8(w_->map, codes[r], w_->nested_absmax[block / w_->nested_blocksize], w_->offset);
    }
  }

  const PackedWeight* w_ = nullptr;
  std::int64_t spans_ = 0;
  int shift_ = 0;  // of nested blocks; -1: they are not so simple
  std::int64_t expanded_ = -1;
  float buffer_[kPanelRows];
  std::uint32_t outer_block_[kPanelRows];  // whose scales are in outer_
  float outer_[kPanelRows];
};

// Rows of W as columns of the product: block[word][kTileColumns] of W's columns [k, k + depth).
template <class Mode, Float via, Float round>
void decode_rows(const ProductArgs& args,
                 std::int64_t first_row,
                 std::int64_t k,
                 std::int64_t depth,
                 std::uint32_t* block) {
  const PackedWeight& w = *args.w;
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
void decode_columns(const ProductArgs& args,
                    std::int64_t first_column,
                    std::int64_t n,
                    std::int64_t depth,
                    std::uint32_t* block) {
  const PackedWeight& w = *args.w;
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

// `count` elements at p, zeros beyond them.
template <class T>
Vec load_part(const typename T::Storage* p, std::int64_t count) {
  if (count >= kLanes) return load_as<T>(p);
  float rest[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) rest[i] = i < count ? T::load(p[i]) : 0.0f;
  return load(rest);
}

// x rounded to R, any float.
template <class R>
Vec round_any(Vec x) {
  if constexpr (R::kFloat == Float::f32) return x;
  typename R::Storage rounded[kLanes];
  store_as(R(), rounded, x);
  return load_as<R>(rounded);
}

// Elements of a row of a dense W as values: codes times the row's step.
template <class T>
Vec values_of(const DenseMatrix& w, std::int64_t row, const Vec& x) {
  if constexpr (std::is_same_v<T, Int8>) {
    return row < w.rows ? mul(x, splat(int8_step(w.absmax[row]))) : x;
  } else {
    return x;
  }
}

// Rows of a dense W as columns of the product, as decode_rows: kLanes rows and kLanes columns at a
// time, transposed in registers.
template <class Mode, class T, class R>
void copy_rows(const ProductArgs& args,
               std::int64_t first_row,
               std::int64_t k,
               std::int64_t depth,
               std::uint32_t* block) {
  const DenseMatrix& w = *args.dense;
  const auto* data = static_cast<const typename T::Storage*>(w.data);
  for (int v = 0; v < kTileVectors; ++v) {
    for (std::int64_t begin = 0; begin < depth; begin += kLanes * Mode::kElements) {
      Vec even[kLanes], odd[kLanes];
      for (int r = 0; r < kLanes; ++r) {
        const std::int64_t row = first_row + v * kLanes + r;
        const std::int64_t left = row < w.rows ? depth - begin : 0;
        const auto* x = data + row * w.stride + k + begin;
        even[r] = round_any<R>(values_of<T>(w, row, load_part<T>(x, left)));
        if constexpr (Mode::kElements == 2) {
          odd[r] = round_any<R>(values_of<T>(w, row, load_part<T>(x + kLanes, left - kLanes)));
        }
      }
      transpose(even);
      if constexpr (Mode::kElements == 2) transpose(odd);
      std::uint32_t* out = block + begin / Mode::kElements * kTileColumns + v * kLanes;
      for (int i = 0; i < kLanes; ++i, out += kTileColumns) {
        if constexpr (Mode::kElements == 1) {
          store_words(out, Mode::pack(even[i], even[i]));
        } else if (i < kLanes / 2) {
          store_words(out, Mode::pack(even[2 * i], even[2 * i + 1]));
        } else {
          store_words(out, Mode::pack(odd[2 * i - kLanes], odd[2 * i + 1 - kLanes]));
        }
      }
    }
  }
}

// Columns of a dense W as columns of the product, as decode_columns.
template <class Mode, class T, class R>
void copy_columns(const ProductArgs& args,
                  std::int64_t first_column,
                  std::int64_t n,
                  std::int64_t depth,
                  std::uint32_t* block) {
  const DenseMatrix& w = *args.dense;
  const auto* data = static_cast<const typename T::Storage*>(w.data);
  for (int v = 0; v < kTileVectors; ++v) {
    const std::int64_t column = first_column + v * kLanes;
    const auto row = [&](std::int64_t r) {
      const std::int64_t left = r < depth ? w.columns - column : 0;
      const Vec x = load_part<T>(data + (n + r) * w.stride + column, left);
      return round_any<R>(values_of<T>(w, n + r, x));
    };
    std::uint32_t* out = block + v * kLanes;
    for (std::int64_t r = 0; r < depth; r += Mode::kElements, out += kTileColumns) {
      const Vec first = row(r);
      store_words(out, Mode::pack(first, Mode::kElements == 1 ? first : row(r + 1)));
    }
  }
}

using DecodeFn =
    void (*)(const ProductArgs&, std::int64_t, std::int64_t, std::int64_t, std::uint32_t*);

template <class Mode, Float via, class R>
DecodeFn decode_of(bool transposed) {
  return transposed ? &decode_columns<Mode, via, R::kFloat> : &decode_rows<Mode, via, R::kFloat>;
}

template <class Mode, class T, class R>
DecodeFn copy_of(bool transposed) {
  return transposed ? &copy_columns<Mode, T, R> : &copy_rows<Mode, T, R>;
}

// What fills a block of weights.
template <class Mode, class R>
DecodeFn source_of(const ProductArgs& args) {
  if (args.w == nullptr && args.dense->absmax != nullptr) {
    return copy_of<Mode, Int8, R>(args.transposed);
  }
  switch (args.w != nullptr ? args.w->via : args.dense->type) {
    case Float::bf16:
      return args.w != nullptr ? decode_of<Mode, Float::bf16, R>(args.transposed)
                               : copy_of<Mode, Bf16, R>(args.transposed);
    case Float::f16:
      return args.w != nullptr ? decode_of<Mode, Float::f16, R>(args.transposed)
                               : copy_of<Mode, F16, R>(args.transposed);
    default:
      return args.w != nullptr ? decode_of<Mode, Float::f32, R>(args.transposed)
                               : copy_of<Mode, F32, R>(args.transposed);
  }
}

}  // namespace
}  // namespace lorapp::kernels
