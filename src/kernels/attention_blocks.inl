// What the attention kernels are made of: products of small blocks, and rows widened to f32,
// transposed, cut into strips. In the vocabulary of vec_<isa>.hpp, which is included before.
//
// Scores are kept transposed: rows (a query of one head) are lanes, so that a row's maximum and sum
// are vertical, and neither keys nor values need to be transposed: their elements are factors.
#pragma once

#include "kernels/attention_args.hpp"
#include "kernels/math.inl"
#include "kernels/weight_blocks.inl"

namespace lorapp::kernels {
namespace {

constexpr int kTile = kLanes * kTileVectors;                           // rows of a tile
constexpr int kStep = kTileRows % 3 == 0 ? kTileRows / 3 : kTileRows;  // keys are counted in these
constexpr std::int64_t kStripStride = (kBlockKeys + 4) * kTileRows;
static_assert(kBlockKeys % kTileRows == 0 && kBackwardRows % kTile == 0 &&
              kForwardRows % kTile == 0 && 4 % kStep == 0 && kTile * kHeadStride <= kScoreSpace);

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
std::int64_t larger(std::int64_t a, std::int64_t b) { return a > b ? a : b; }
std::int64_t round_up(std::int64_t n, std::int64_t step) { return (n + step - 1) / step * step; }

// c[Rows][kTile] = a[Rows][depth] · b[depth][kTile], plus factor[kTile] · c unless factor is null.
template <int Rows, int RowStride, int DepthStride>
void multiply_rows(const float* a,
                   const float* b,
                   std::int64_t b_stride,
                   std::int64_t depth,
                   float* c,
                   std::int64_t c_stride,
                   const float* factor) {
  Vec sum[Rows][kTileVectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = zero();
  }
  for (std::int64_t i = 0; i < depth; ++i, a += DepthStride, b += b_stride) {
    Vec column[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) column[v] = load(b + v * kLanes);
    for (int r = 0; r < Rows; ++r) {
      const Vec x = splat(a[r * RowStride]);
      for (int v = 0; v < kTileVectors; ++v) sum[r][v] = fma(x, column[v], sum[r][v]);
    }
  }
  for (int r = 0; r < Rows; ++r, c += c_stride) {
    for (int v = 0; v < kTileVectors; ++v) {
      float* to = c + v * kLanes;
      if (factor != nullptr) sum[r][v] = fma(load(to), load(factor + v * kLanes), sum[r][v]);
      store(to, sum[r][v]);
    }
  }
}

// The same for any number of rows that kStep divides; `a` goes on by `a_tile` for kTileRows rows.
template <int RowStride, int DepthStride>
void multiply(const float* a,
              std::int64_t a_tile,
              std::int64_t rows,
              const float* b,
              std::int64_t b_stride,
              std::int64_t depth,
              float* c,
              std::int64_t c_stride,
              const float* factor) {
  for (; rows >= kTileRows; rows -= kTileRows, a += a_tile, c += kTileRows * c_stride) {
    multiply_rows<kTileRows, RowStride, DepthStride>(a, b, b_stride, depth, c, c_stride, factor);
  }
  if constexpr (kStep < kTileRows) {
    if (rows == 2 * kStep) {
      multiply_rows<2 * kStep, RowStride, DepthStride>(a, b, b_stride, depth, c, c_stride, factor);
    } else if (rows == kStep) {
      multiply_rows<kStep, RowStride, DepthStride>(a, b, b_stride, depth, c, c_stride, factor);
    }
  }
}

// Factors: rows of kHeadStride; strips [strip][key][kTileRows] of columns.
void multiply_keys(const float* keys,
                   std::int64_t count,
                   const float* b,
                   std::int64_t depth,
                   float* c,
                   std::int64_t c_stride) {
  multiply<kHeadStride, 1>(keys, kTileRows * kHeadStride, count, b, kTile, depth, c, c_stride,
                           nullptr);
}
void multiply_strips(const float* strips,
                     std::int64_t columns,
                     const float* b,
                     std::int64_t b_stride,
                     std::int64_t depth,
                     float* c,
                     const float* factor) {
  multiply<1, kTileRows>(strips, kStripStride, columns, b, b_stride, depth, c, kTile, factor);
}

template <class T>
void store_part(typename T::Storage* out, Vec x, std::int64_t count) {
  if (count >= kLanes) return store_as(T(), out, x);
  float lanes[kLanes];
  store(lanes, x);
  for (std::int64_t i = 0; i < count; ++i) out[i] = T::store(lanes[i]);
}

template <class T>
typename T::Storage* row_of(const AttentionRows& rows, std::int64_t token, std::int64_t head) {
  return static_cast<typename T::Storage*>(rows.data) + token * rows.token_stride +
         head * rows.head_stride;
}

// out = scale · x, zeros up to padded_head_size.
template <class T>
void widen_row(const typename T::Storage* x, std::int64_t size, float scale, float* out) {
  const Vec factor = splat(scale);
  std::int64_t c = 0;
  for (; c < size; c += kLanes) store(out + c, mul(load_part<T>(x + c, size - c), factor));
  for (; c < padded_head_size(size); c += kLanes) store(out + c, zero());
}
void clear_row(std::int64_t size, float* out) {
  for (std::int64_t c = 0; c < padded_head_size(size); c += kLanes) store(out + c, zero());
}

// Row `key` of strips. A store may spill into the rows behind, which are written later, or spare.
void put_strips(const float* row, std::int64_t size, std::int64_t key, float* strips) {
  float* out = strips + key * kTileRows;
  for (std::int64_t c = 0; c < size; c += kTileRows, out += kStripStride) {
    for (int i = 0; i < kTileRows; i += kLanes) store(out + i, load(row + c + i));
  }
}

// [size][kTile] of kTile rows.
void transpose_tile(const float* rows, std::int64_t size, float* out) {
  for (std::int64_t c = 0; c < size; c += kLanes) {
    for (int v = 0; v < kTileVectors; ++v) {
      Vec block[kLanes];
      for (int i = 0; i < kLanes; ++i) block[i] = load(rows + (v * kLanes + i) * kHeadStride + c);
      transpose(block);
      for (int i = 0; i < kLanes && c + i < size; ++i) {
        store(out + (c + i) * kTile + v * kLanes, block[i]);
      }
    }
  }
}

// Rows of a block: row r is query first + r / heads, head r % heads.
struct Block {
  const AttentionGroup& group;
  std::int64_t first;  // query
  std::int64_t rows;
  std::int64_t position;  // of the first query among the keys

  Block(const AttentionGroup& g, std::int64_t begin, std::int64_t end)
      : group(g),
        first(begin),
        rows((end - begin) * g.heads),
        position(g.keys - g.queries + begin) {}

  std::int64_t tiles() const { return (rows + kTile - 1) / kTile; }
  std::int64_t query_of(std::int64_t row) const { return first + row / group.heads; }
  std::int64_t head_of(std::int64_t row) const { return row % group.heads; }
  std::int64_t tile_rows(std::int64_t tile) const { return smaller(kTile, rows - tile * kTile); }
  // The positions of a tile's first and last row.
  std::int64_t tile_begin(std::int64_t tile) const { return position + tile * kTile / group.heads; }
  std::int64_t tile_end(std::int64_t tile) const {
    return position + (tile * kTile + tile_rows(tile) - 1) / group.heads;
  }
  std::int64_t first_key() const {
    return group.window > 0 ? larger(0, position - group.window + 1) : 0;
  }
  std::int64_t last_key() const { return position + rows / group.heads; }
};

// The keys [begin, end) of a block of keys that rows of a tile see, in whole steps.
struct Range {
  std::int64_t begin, end;
};
Range visible_keys(const Block& block, std::int64_t tile, std::int64_t key, std::int64_t count) {
  const std::int64_t window = block.group.window;
  const std::int64_t begin = window > 0 ? block.tile_begin(tile) - window + 1 - key : 0;
  const std::int64_t end = smaller(count, block.tile_end(tile) + 1 - key);
  if (end <= 0) return {0, 0};
  if (begin >= count) return {round_up(count, kStep), round_up(count, kStep)};
  return {larger(0, begin) / kStep * kStep, round_up(end, kStep)};
}

struct Masks {
  std::uint32_t word[3 * kTile];
};
constexpr Masks masks_of_tile() {
  Masks masks{};
  for (int i = 0; i < kTile; ++i) masks.word[kTile + i] = 0xffffffffu;
  return masks;
}
constexpr Masks kMasks = masks_of_tile();

// Which keys are seen by some rows of a tile and not by others, and by which.
class Visibility {
 public:
  Visibility(const Block& block, std::int64_t tile)
      : heads_(block.group.heads),
        window_(block.group.window),
        row_(tile * kTile),
        position_(block.position),
        begin_(block.tile_begin(tile)),
        end_(block.tile_end(tile)) {}

  bool partial(std::int64_t key) const {
    return key > begin_ || (window_ > 0 && key + window_ <= end_);
  }
  // -inf in the lanes that do not see `key`.
  Vec mask(Vec scores, int v, std::int64_t key) const {
    const Vec hidden = splat(from_bits(0xff800000u));
    const std::uint32_t* from = kMasks.word + kTile - lane(key);
    scores = select(load_words(from + v * kLanes), scores, hidden);
    if (window_ == 0) return scores;
    const std::uint32_t* until = kMasks.word + 2 * kTile - lane(key + window_);
    return select(load_words(until + v * kLanes), scores, hidden);
  }

 private:
  // The first lane whose query is at `position` or behind.
  std::int64_t lane(std::int64_t position) const {
    return smaller(kTile, larger(0, (position - position_) * heads_ - row_));
  }
  std::int64_t heads_, window_, row_, position_, begin_, end_;
};

// Rows = factor · columns[size][kTile]ᵀ.
template <class T>
void put_rows(const Block& block,
              std::int64_t tile,
              const float* columns,
              const float* factor,
              const AttentionRows& out) {
  const std::int64_t size = block.group.head_size, count = block.tile_rows(tile);
  for (std::int64_t c = 0; c < size; c += kLanes) {
    for (int v = 0; v < kTileVectors; ++v) {
      Vec lines[kLanes];
      const Vec f = load(factor + v * kLanes);
      for (int i = 0; i < kLanes; ++i) {
        lines[i] = c + i < size ? mul(load(columns + (c + i) * kTile + v * kLanes), f) : zero();
      }
      transpose(lines);
      for (int i = 0; i < kLanes && v * kLanes + i < count; ++i) {
        const std::int64_t row = tile * kTile + v * kLanes + i;
        auto* to = row_of<T>(out, block.query_of(row), block.head_of(row));
        store_part<T>(to + c, lines[i], size - c);
      }
    }
  }
}

}  // namespace
}  // namespace lorapp::kernels
