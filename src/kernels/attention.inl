// Attention over the packed rows of a sequence, forward and backward, written once. An ISA file
// includes its vocabulary (vec_<isa>.hpp), then this. After Dao et al. 2022 ("FlashAttention"):
// blocks of scores are made, used and forgotten; backward makes them again from log Σ exp.
#pragma once

#include "kernels/attention_blocks.inl"

namespace lorapp::kernels {
namespace {

constexpr float kLowest = -0x1.fffffep127f;  // finite: the first maximum, below every score

// Running maxima and sums of the rows of a block.
struct Softmax {
  alignas(64) float maximum[kForwardRows];
  alignas(64) float sum[kForwardRows];
  alignas(64) float factor[kTile];  // of what the tile has summed so far
};

// Scores of the keys [range) → exp(score - maximum).
void exponentiate(const Visibility& visible,
                  std::int64_t key,
                  Range range,
                  std::int64_t row,
                  float* scores,
                  Softmax& state) {
  Vec maximum[kTileVectors], before[kTileVectors], sum[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    maximum[v] = before[v] = load(state.maximum + row + v * kLanes);
    sum[v] = zero();
  }
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    const bool partial = visible.partial(key + j);
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = scores + j * kTile + v * kLanes;
      Vec x = load(at);
      if (partial) {
        x = visible.mask(x, v, key + j);
        store(at, x);
      }
      maximum[v] = max_of(maximum[v], x);
    }
  }
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    for (int v = 0; v < kTileVectors; ++v) {
      float* at = scores + j * kTile + v * kLanes;
      const Vec p = exp_of(sub(load(at), maximum[v]));
      sum[v] = add(sum[v], p);
      store(at, p);
    }
  }
  for (int v = 0; v < kTileVectors; ++v) {
    const Vec factor = exp_of(sub(before[v], maximum[v]));
    float* total = state.sum + row + v * kLanes;
    store(total, fma(load(total), factor, sum[v]));
    store(state.maximum + row + v * kLanes, maximum[v]);
    store(state.factor + v * kLanes, factor);
  }
}

template <class T>
std::int64_t forward_block(const AttentionForwardArgs& args, const Block& block) {
  const AttentionGroup& group = args.group;
  const std::int64_t size = group.head_size, tile_columns = size * kTile;
  float* keys = args.space;
  float* values = keys + kKeySpace;
  float* queries = values + kKeySpace;  // [tile][size][kTile], as the sums
  float* sums = queries + kForwardRows * size;
  float* scores = sums + kForwardRows * size;
  alignas(64) float wide[kHeadStride] = {};

  Softmax state;
  for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
    for (std::int64_t r = 0; r < kTile; ++r) {
      const std::int64_t row = tile * kTile + r;
      state.maximum[row] = kLowest;
      state.sum[row] = 0.0f;
      float* to = scores + r * kHeadStride;
      if (row < block.rows) {
        widen_row<T>(row_of<T>(group.q, block.query_of(row), block.head_of(row)), size, group.scale,
                     to);
      } else {
        clear_row(size, to);
      }
    }
    transpose_tile(scores, size, queries + tile * tile_columns);
    for (std::int64_t i = 0; i < tile_columns; i += kLanes) {
      store(sums + tile * tile_columns + i, zero());
    }
  }
  std::int64_t pairs = 0;
  for (std::int64_t key = block.first_key(); key < block.last_key(); key += kBlockKeys) {
    const std::int64_t count = smaller(kBlockKeys, block.last_key() - key);
    for (std::int64_t j = 0; j < round_up(count, kStep); ++j) {
      if (j < count) {
        widen_row<T>(row_of<T>(group.k, key + j, 0), size, 1.0f, keys + j * kHeadStride);
        widen_row<T>(row_of<T>(group.v, key + j, 0), size, 1.0f, wide);
      } else {
        clear_row(size, keys + j * kHeadStride);
        clear_row(size, wide);
      }
      put_strips(wide, size, j, values);
    }
    for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
      const Range range = visible_keys(block, tile, key, count);
      if (range.begin >= range.end) continue;
      const std::int64_t n = range.end - range.begin;
      pairs += n * block.tile_rows(tile);
      multiply_keys(keys + range.begin * kHeadStride, n, queries + tile * tile_columns, size,
                    scores + range.begin * kTile, kTile);
      exponentiate(Visibility(block, tile), key, range, tile * kTile, scores, state);
      multiply_strips(values + range.begin * kTileRows, size, scores + range.begin * kTile, kTile,
                      n, sums + tile * tile_columns, state.factor);
    }
  }
  for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
    alignas(64) float inverse[kTile];
    for (std::int64_t r = 0; r < kTile; ++r) {
      const std::int64_t row = tile * kTile + r;
      inverse[r] = 1.0f / state.sum[row];
      if (row >= block.rows) continue;
      args.log_sum[block.query_of(row) * args.log_sum_stride + block.head_of(row)] =
          state.maximum[row] + log_of(state.sum[row]);
    }
    put_rows<T>(block, tile, sums + tile * tile_columns, inverse, args.out);
  }
  return pairs;
}

template <class T>
std::int64_t forward_blocks(const AttentionForwardArgs& args) {
  const std::int64_t step = block_queries(args.group.heads);
  std::int64_t pairs = 0;
  for (std::int64_t begin = args.first; begin < args.last; begin += step) {
    pairs += forward_block<T>(args, Block(args.group, begin, smaller(begin + step, args.last)));
  }
  return pairs;
}

std::int64_t attention_forward(const AttentionForwardArgs& args) {
  count_call();
  switch (args.group.type) {
    case Float::f32:
      return forward_blocks<F32>(args);
    case Float::bf16:
      return forward_blocks<Bf16>(args);
    case Float::f16:
      return forward_blocks<F16>(args);
  }
  return 0;
}

// A block of rows in the backward pass, and where its parts are in the work space.
struct BackwardRows {
  alignas(64) float log_sum[kBackwardRows];
  alignas(64) float delta[kBackwardRows];  // Σ dout · out
  alignas(64) float ones[kTile];
  Range ranges[kBackwardRows / kTile];
  float *keys, *values, *key_strips;  // blocks of keys
  float *q, *dout;                    // [row][kHeadStride]
  float *qt, *dout_t, *dq_t;          // [tile][size][kTile]
  float *p, *ds;                      // [key][kRowStride]

  explicit BackwardRows(float* space) {
    float** const of_keys[] = {&keys, &values, &key_strips};
    float** const of_rows[] = {&q, &dout, &qt, &dout_t, &dq_t};
    for (float** each : of_keys) *each = space, space += kKeySpace;
    for (float** each : of_rows) *each = space, space += kRowSpace;
    p = space;
    ds = space + kScoreSpace;
    for (float& one : ones) one = 1.0f;
  }
};

template <class T>
void pack_rows_backward(const AttentionBackwardArgs& args, const Block& block, BackwardRows& rows) {
  const AttentionGroup& group = args.group;
  const std::int64_t size = group.head_size, tile_columns = size * kTile;
  for (std::int64_t row = 0; row < block.tiles() * kTile; ++row) {
    float* q = rows.q + row * kHeadStride;
    float* dout = rows.dout + row * kHeadStride;
    rows.log_sum[row] = rows.delta[row] = 0.0f;
    if (row >= block.rows) {
      clear_row(size, q);
      clear_row(size, dout);
      continue;
    }
    const std::int64_t query = block.query_of(row), head = block.head_of(row);
    widen_row<T>(row_of<T>(group.q, query, head), size, group.scale, q);
    widen_row<T>(row_of<T>(args.dout, query, head), size, 1.0f, dout);
    const auto* out = row_of<T>(args.out, query, head);
    Vec delta = zero();
    for (std::int64_t c = 0; c < size; c += kLanes) {
      delta = fma(load_part<T>(out + c, size - c), load(dout + c), delta);
    }
    rows.delta[row] = lane_sum(delta);
    rows.log_sum[row] = args.log_sum[query * args.log_sum_stride + head];
  }
  for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
    transpose_tile(rows.q + tile * kTile * kHeadStride, size, rows.qt + tile * tile_columns);
    transpose_tile(rows.dout + tile * kTile * kHeadStride, size, rows.dout_t + tile * tile_columns);
    for (std::int64_t i = 0; i < tile_columns; i += kLanes) {
      store(rows.dq_t + tile * tile_columns + i, zero());
    }
  }
}

// p: scores → probabilities; ds: their gradients → those of the scores. Keys of the last tile of
// keys, and of the first, that the rows do not see are zero.
void differentiate(const Visibility& visible,
                   std::int64_t key,
                   Range range,
                   std::int64_t keys,
                   std::int64_t row,
                   BackwardRows& rows) {
  const auto clear = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t j = begin; j < end; ++j) {
      for (int v = 0; v < kTileVectors; ++v) {
        store(rows.p + j * kRowStride + row + v * kLanes, zero());
        store(rows.ds + j * kRowStride + row + v * kLanes, zero());
      }
    }
  };
  clear(range.begin / kTileRows * kTileRows, range.begin);
  clear(range.end, smaller(keys, round_up(range.end, kTileRows)));
  Vec log_sum[kTileVectors], delta[kTileVectors];
  for (int v = 0; v < kTileVectors; ++v) {
    log_sum[v] = load(rows.log_sum + row + v * kLanes);
    delta[v] = load(rows.delta + row + v * kLanes);
  }
  for (std::int64_t j = range.begin; j < range.end; ++j) {
    const bool partial = visible.partial(key + j);
    for (int v = 0; v < kTileVectors; ++v) {
      float* p_at = rows.p + j * kRowStride + row + v * kLanes;
      float* ds_at = rows.ds + j * kRowStride + row + v * kLanes;
      Vec x = load(p_at);
      if (partial) x = visible.mask(x, v, key + j);
      const Vec p = exp_of(sub(x, log_sum[v]));
      store(p_at, p);
      store(ds_at, mul(p, sub(load(ds_at), delta[v])));
    }
  }
}

// dk += dsᵀ · q and dv += pᵀ · dout for the keys of a block, over the tiles that see them.
void add_key_gradients(
    const Block& block, const BackwardRows& rows, std::int64_t keys, float* dk, float* dv) {
  const std::int64_t size = padded_head_size(block.group.head_size);
  for (std::int64_t c = 0; c < size; c += kTile) {
    for (std::int64_t j = 0; j < keys; j += kTileRows) {
      const std::int64_t height = smaller(kTileRows, keys - j);
      std::int64_t begin = 0, end = block.tiles();
      while (begin < end && rows.ranges[begin].end <= j) ++begin;
      while (begin < end && rows.ranges[end - 1].begin >= j + height) --end;
      if (begin == end) continue;
      const std::int64_t at = j * kRowStride + begin * kTile;
      const std::int64_t row = begin * kTile * kHeadStride + c, depth = (end - begin) * kTile;
      multiply<kRowStride, 1>(rows.ds + at, 0, height, rows.q + row, kHeadStride, depth,
                              dk + j * size + c, size, rows.ones);
      multiply<kRowStride, 1>(rows.p + at, 0, height, rows.dout + row, kHeadStride, depth,
                              dv + j * size + c, size, rows.ones);
    }
  }
}

template <class T>
std::int64_t backward_block(const AttentionBackwardArgs& args, const Block& block) {
  const AttentionGroup& group = args.group;
  const std::int64_t size = group.head_size, tile_columns = size * kTile;
  BackwardRows rows(args.space);
  pack_rows_backward<T>(args, block, rows);
  std::int64_t pairs = 0;
  for (std::int64_t key = block.first_key(); key < block.last_key(); key += kBlockKeys) {
    const std::int64_t count = smaller(kBlockKeys, block.last_key() - key);
    const std::int64_t padded = round_up(count, kStep);
    for (std::int64_t j = 0; j < padded; ++j) {
      float* k = rows.keys + j * kHeadStride;
      float* v = rows.values + j * kHeadStride;
      if (j < count) {
        widen_row<T>(row_of<T>(group.k, key + j, 0), size, 1.0f, k);
        widen_row<T>(row_of<T>(group.v, key + j, 0), size, 1.0f, v);
      } else {
        clear_row(size, k);
        clear_row(size, v);
      }
      put_strips(k, size, j, rows.key_strips);
    }
    for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
      const Range range = rows.ranges[tile] = visible_keys(block, tile, key, count);
      if (range.begin >= range.end) continue;
      const std::int64_t n = range.end - range.begin, row = tile * kTile;
      const std::int64_t from = range.begin * kHeadStride, at = range.begin * kRowStride + row;
      pairs += n * block.tile_rows(tile);
      multiply_keys(rows.keys + from, n, rows.qt + tile * tile_columns, size, rows.p + at,
                    kRowStride);
      multiply_keys(rows.values + from, n, rows.dout_t + tile * tile_columns, size, rows.ds + at,
                    kRowStride);
      differentiate(Visibility(block, tile), key, range, padded, row, rows);
      multiply_strips(rows.key_strips + range.begin * kTileRows, size, rows.ds + at, kRowStride, n,
                      rows.dq_t + tile * tile_columns, rows.ones);
    }
    float* dk = args.sums + key * padded_head_size(size);
    add_key_gradients(block, rows, padded, dk,
                      dk + padded_keys(group.keys) * padded_head_size(size));
  }
  alignas(64) float scale[kTile];
  for (float& each : scale) each = group.scale;
  for (std::int64_t tile = 0; tile < block.tiles(); ++tile) {
    put_rows<T>(block, tile, rows.dq_t + tile * tile_columns, scale, args.dq);
  }
  return pairs;
}

template <class T>
std::int64_t backward_blocks(const AttentionBackwardArgs& args) {
  const AttentionGroup& group = args.group;
  const std::int64_t size = padded_head_size(group.head_size), keys = padded_keys(group.keys);
  for (std::int64_t i = 0; i < 2 * keys * size; i += kLanes) store(args.sums + i, zero());
  const std::int64_t step = kBackwardRows / group.heads;
  std::int64_t pairs = 0;
  for (std::int64_t begin = 0; begin < group.queries; begin += step) {
    pairs += backward_block<T>(args, Block(group, begin, smaller(begin + step, group.queries)));
  }
  for (std::int64_t j = 0; j < group.keys; ++j) {
    const float* dk = args.sums + j * size;
    const float* dv = dk + keys * size;
    for (std::int64_t c = 0; c < group.head_size; c += kLanes) {
      store_part<T>(row_of<T>(args.dk, j, 0) + c, load(dk + c), group.head_size - c);
      store_part<T>(row_of<T>(args.dv, j, 0) + c, load(dv + c), group.head_size - c);
    }
  }
  return pairs;
}

std::int64_t attention_backward(const AttentionBackwardArgs& args) {
  count_call();
  switch (args.group.type) {
    case Float::f32:
      return backward_blocks<F32>(args);
    case Float::bf16:
      return backward_blocks<Bf16>(args);
    case Float::f16:
      return backward_blocks<F16>(args);
  }
  return 0;
}

}  // namespace
}  // namespace lorapp::kernels
