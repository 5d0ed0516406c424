// Attention of one query: bound by the reading of keys and values, each of which is read once for
// all heads of a group. After attention.inl.
#pragma once

#include "kernels/attention.inl"

namespace lorapp::kernels {
namespace {

constexpr std::int64_t kDecodeKeys = 64;  // at a time: what several rows read is in the cache
constexpr int kDecodeRows = kLanes == 16 ? 4 : 2;  // that share what is read, in registers
constexpr int kDecodeVectors = kLanes == 16 ? 4 : 2;
static_assert(kDecodeKeys % kLanes == 0);

// scores[Rows][kDecodeKeys] of `count` keys, -inf beyond.
template <class T, int Rows>
void score_keys(const AttentionGroup& group,
                const float* q,
                std::int64_t key,
                std::int64_t count,
                float (*scores)[kDecodeKeys]) {
  const std::int64_t size = group.head_size;
  for (std::int64_t j = 0; j < count; j += 4) {
    const typename T::Storage* k[4];
    for (int i = 0; i < 4; ++i) k[i] = row_of<T>(group.k, key + smaller(j + i, count - 1), 0);
    Vec sum[Rows][4];
    for (int r = 0; r < Rows; ++r) {
      for (int i = 0; i < 4; ++i) sum[r][i] = zero();
    }
    const auto add_products = [&](const Vec(&x)[4], std::int64_t c) {
      for (int r = 0; r < Rows; ++r) {
        const Vec y = load(q + r * kHeadStride + c);
        for (int i = 0; i < 4; ++i) sum[r][i] = fma(x[i], y, sum[r][i]);
      }
    };
    std::int64_t c = 0;
    for (; c + kLanes <= size; c += kLanes) {
      add_products(
          {load_as<T>(k[0] + c), load_as<T>(k[1] + c), load_as<T>(k[2] + c), load_as<T>(k[3] + c)},
          c);
    }
    if (c < size) {
      const std::int64_t n = size - c;
      add_products({load_part<T>(k[0] + c, n), load_part<T>(k[1] + c, n), load_part<T>(k[2] + c, n),
                    load_part<T>(k[3] + c, n)},
                   c);
    }
    for (int r = 0; r < Rows; ++r) store_sums(scores[r] + j, sum[r]);
  }
  for (std::int64_t j = count; j < kDecodeKeys; ++j) {
    for (int r = 0; r < Rows; ++r) scores[r][j] = from_bits(0xff800000u);
  }
}

// out[Rows][c … c + Vectors · kLanes) = factor · out + p · V; `part` elements of the last vector.
template <class T, int Rows, int Vectors>
void add_values(const AttentionGroup& group,
                std::int64_t key,
                std::int64_t count,
                const float (*p)[kDecodeKeys],
                const float* factor,
                std::int64_t c,
                std::int64_t part,
                float* out) {
  Vec sum[Rows][Vectors];
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      sum[r][v] = mul(load_part<F32>(out + r * group.head_size + c + v * kLanes,
                                     v + 1 < Vectors ? kLanes : part),
                      splat(factor[r]));
    }
  }
  for (std::int64_t j = 0; j < count; ++j) {
    const auto* value = row_of<T>(group.v, key + j, 0) + c;
    Vec weight[Rows];
    for (int r = 0; r < Rows; ++r) weight[r] = splat(p[r][j]);
    for (int v = 0; v < Vectors; ++v) {
      const Vec x = load_part<T>(value + v * kLanes, v + 1 < Vectors ? kLanes : part);
      for (int r = 0; r < Rows; ++r) sum[r][v] = fma(weight[r], x, sum[r][v]);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    for (int v = 0; v < Vectors; ++v) {
      store_part<F32>(out + r * group.head_size + c + v * kLanes, sum[r][v],
                      v + 1 < Vectors ? kLanes : part);
    }
  }
}

template <class T, int Rows>
void decode_group(const AttentionDecodeArgs& args,
                  std::int64_t row,
                  std::int64_t key,
                  std::int64_t count) {
  const AttentionGroup& group = args.group;
  alignas(64) float scores[Rows][kDecodeKeys];
  float factor[Rows];
  score_keys<T, Rows>(group, args.space + row * kHeadStride, key, count, scores);
  for (int r = 0; r < Rows; ++r) {
    Vec maxima = splat(args.maximum[row + r]);
    for (std::int64_t j = 0; j < kDecodeKeys; j += kLanes) {
      maxima = max_of(maxima, load(scores[r] + j));
    }
    float lanes[kLanes];
    store(lanes, maxima);
    float maximum = lanes[0];
    for (const float each : lanes) {
      if (!(each <= maximum)) maximum = each;  // a NaN may go; its exponential stays
    }
    Vec sum = zero();
    for (std::int64_t j = 0; j < kDecodeKeys; j += kLanes) {
      const Vec p = exp_of(sub(load(scores[r] + j), splat(maximum)));
      sum = add(sum, p);
      store(scores[r] + j, p);
    }
    store(lanes, exp_of(splat(args.maximum[row + r] - maximum)));
    factor[r] = lanes[0];
    args.sum[row + r] = args.sum[row + r] * factor[r] + lane_sum(sum);
    args.maximum[row + r] = maximum;
  }
  float* out = args.out + row * group.head_size;
  std::int64_t c = 0;
  for (; c + kDecodeVectors * kLanes <= group.head_size; c += kDecodeVectors * kLanes) {
    add_values<T, Rows, kDecodeVectors>(group, key, count, scores, factor, c, kLanes, out);
  }
  for (; c < group.head_size; c += kLanes) {
    add_values<T, Rows, 1>(group, key, count, scores, factor, c,
                           smaller(kLanes, group.head_size - c), out);
  }
}

template <class T>
void decode(const AttentionDecodeArgs& args) {
  const AttentionGroup& group = args.group;
  for (std::int64_t h = 0; h < group.heads; ++h) {
    widen_row<T>(row_of<T>(group.q, group.queries - 1, h), group.head_size, group.scale,
                 args.space + h * kHeadStride);
    args.maximum[h] = kLowest;
    args.sum[h] = 0.0f;
    for (std::int64_t c = 0; c < group.head_size; ++c) args.out[h * group.head_size + c] = 0.0f;
  }
  for (std::int64_t key = args.first; key < args.last; key += kDecodeKeys) {
    const std::int64_t count = smaller(kDecodeKeys, args.last - key);
    std::int64_t row = 0;
    for (; row + kDecodeRows <= group.heads; row += kDecodeRows) {
      decode_group<T, kDecodeRows>(args, row, key, count);
    }
    for (; row < group.heads; ++row) decode_group<T, 1>(args, row, key, count);
  }
}

void attention_decode(const AttentionDecodeArgs& args) {
  count_call();
  switch (args.group.type) {
    case Float::f32:
      return decode<F32>(args);
    case Float::bf16:
      return decode<Bf16>(args);
    case Float::f16:
      return decode<F16>(args);
  }
}

}  // namespace
}  // namespace lorapp::kernels
