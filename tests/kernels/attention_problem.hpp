// One sequence and one group of heads as the attention kernels get them, and what they compute of
// it beside sums in double.
#pragma once

#include "kernels/attention_args.hpp"
#include "kernels/dispatch.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace lorapp::kernels {

using Doubles = std::vector<double>;

inline std::size_t at(std::int64_t index) { return static_cast<std::size_t>(index); }

// Rows [token, head, element] as a kernel reads them, with gaps between heads and tokens.
class Rows {
 public:
  Rows(Float type, std::int64_t tokens, std::int64_t heads, std::int64_t size)
      : type_(type),
        heads_(heads),
        size_(size),
        head_stride_(size + 3),
        token_stride_(heads * head_stride_ + 5),
        words_(at(tokens * token_stride_ + 64), 0xffffffffu) {}  // NaN as every type
  Rows(Float type, std::int64_t tokens, std::int64_t heads, std::int64_t size, unsigned seed)
      : Rows(type, tokens, heads, size) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t h = 0; h < heads; ++h) {
        for (std::int64_t c = 0; c < size; ++c) set(t, h, c, normal(random));
      }
    }
  }

  void set(std::int64_t token, std::int64_t head, std::int64_t c, float x) {
    const std::size_t i = at(token * token_stride_ + head * head_stride_ + c);
    if (type_ == Float::f32) words_[i] = bits_of(x);
    if (type_ == Float::bf16) half(i) = f32_to_bf16(x);
    if (type_ == Float::f16) half(i) = f32_to_f16(x);
  }
  double get(std::int64_t token, std::int64_t head, std::int64_t c) const {
    const std::size_t i = at(token * token_stride_ + head * head_stride_ + c);
    if (type_ == Float::f32) return from_bits(words_[i]);
    const std::uint16_t bits = const_cast<Rows*>(this)->half(i);
    return type_ == Float::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
  AttentionRows view() { return {words_.data(), token_stride_, head_stride_}; }
  std::int64_t heads() const { return heads_; }
  std::int64_t size() const { return size_; }

 private:
  std::uint16_t& half(std::size_t i) { return reinterpret_cast<std::uint16_t*>(words_.data())[i]; }
  Float type_;
  std::int64_t heads_, size_, head_stride_, token_stride_;
  std::vector<std::uint32_t> words_;
};

struct Free {
  void operator()(float* p) const { std::free(p); }
};
using Space = std::unique_ptr<float[], Free>;
inline Space space_of(std::int64_t floats) {
  const std::size_t bytes = (at(floats) * 4 + 63) / 64 * 64;
  Space space(static_cast<float*>(std::aligned_alloc(64, bytes)));
  for (std::size_t i = 0; i < bytes / 4; ++i) space[i] = std::nanf("");  // nothing may rely on it
  return space;
}

struct Shape {
  std::int64_t queries, keys, heads, size, window;
  Float type;
};
inline std::string name_of(const Shape& s) {
  return std::to_string(s.queries) + " of " + std::to_string(s.keys) + " tokens, " +
         std::to_string(s.heads) + " heads of " + std::to_string(s.size) + ", window " +
         std::to_string(s.window) + ", type " + std::to_string(static_cast<int>(s.type));
}

// One sequence and group with what the kernels compute of it, beside the same in double.
struct Problem {
  Shape shape;
  Rows q, k, v, dout, out, dq, dk, dv;
  std::vector<float> log_sum;
  std::int64_t pairs = 0, backward_pairs = 0;

  explicit Problem(const Shape& s)
      : shape(s),
        q(s.type, s.queries, s.heads, s.size, 1),
        k(s.type, s.keys, 1, s.size, 2),
        v(s.type, s.keys, 1, s.size, 3),
        dout(s.type, s.queries, s.heads, s.size, 4),
        out(s.type, s.queries, s.heads, s.size),
        dq(s.type, s.queries, s.heads, s.size),
        dk(s.type, s.keys, 1, s.size),
        dv(s.type, s.keys, 1, s.size),
        log_sum(at(s.queries * s.heads), std::nanf("")) {}

  double scale() const { return 1 / std::sqrt(static_cast<double>(shape.size)); }
  AttentionGroup group() {
    return {.type = shape.type,
            .q = q.view(),
            .k = k.view(),
            .v = v.view(),
            .queries = shape.queries,
            .keys = shape.keys,
            .heads = shape.heads,
            .head_size = shape.size,
            .window = shape.window,
            .scale = static_cast<float>(scale())};
  }
  void forward(const KernelTable& table) {
    const Space space = space_of(kForwardSpace);
    const std::int64_t middle =
        shape.queries / block_queries(shape.heads) / 2 * block_queries(shape.heads);
    pairs = 0;
    for (const auto& [first, last] :
         {std::pair{middle, shape.queries}, std::pair{std::int64_t{0}, middle}}) {
      pairs += table.attention_forward({.group = group(),
                                        .first = first,
                                        .last = last,
                                        .out = out.view(),
                                        .log_sum = log_sum.data(),
                                        .log_sum_stride = shape.heads,
                                        .space = space.get()});
    }
  }
  void backward(const KernelTable& table) {
    const Space space = space_of(kBackwardSpace);
    const Space sums = space_of(2 * padded_keys(shape.keys) * padded_head_size(shape.size));
    backward_pairs = table.attention_backward({.group = group(),
                                               .out = out.view(),
                                               .dout = dout.view(),
                                               .log_sum = log_sum.data(),
                                               .log_sum_stride = shape.heads,
                                               .dq = dq.view(),
                                               .dk = dk.view(),
                                               .dv = dv.view(),
                                               .sums = sums.get(),
                                               .space = space.get()});
  }
  // The probabilities of one row, of the keys [first, last); and log Σ exp.
  struct Row {
    std::int64_t first, last;
    Doubles p;
    double log_sum;
  };
  Row row(std::int64_t query, std::int64_t head) const {
    const std::int64_t position = shape.keys - shape.queries + query;
    Row row{shape.window > 0 ? std::max<std::int64_t>(0, position - shape.window + 1) : 0,
            position + 1,
            {},
            0};
    double sum = 0;
    for (std::int64_t j = row.first; j < row.last; ++j) {
      double score = 0;
      for (std::int64_t c = 0; c < shape.size; ++c) score += q.get(query, head, c) * k.get(j, 0, c);
      row.p.push_back(std::exp(score * scale()));
      sum += row.p.back();
    }
    for (double& p : row.p) p /= sum;
    row.log_sum = std::log(sum);
    return row;
  }
};

// The largest difference of two sets of rows, in units of what rounding may do.
inline double worst(const Rows& got, const Doubles& want, std::int64_t tokens, Float type) {
  const double half_ulp = type == Float::f32 ? 0 : type == Float::bf16 ? 0x1p-8 : 0x1p-11;
  double largest = 0, norm = 0;
  for (const double x : want) norm = std::max(norm, std::abs(x));
  std::size_t i = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t h = 0; h < got.heads(); ++h) {
      for (std::int64_t c = 0; c < got.size(); ++c, ++i) {
        const double allowed = 2e-6 * (norm + 1) + half_ulp * (std::abs(want[i]) + 0.01 * norm);
        const double error = std::abs(got.get(t, h, c) - want[i]) / allowed;
        largest = error < largest ? largest : error;  // NaN stays
      }
    }
  }
  return largest;
}

inline void check_forward(const KernelTable& table, Problem& problem) {
  const Shape& s = problem.shape;
  problem.forward(table);
  Doubles want;
  double log_sum_error = 0;
  for (std::int64_t i = 0; i < s.queries; ++i) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const Problem::Row row = problem.row(i, h);
      for (std::int64_t c = 0; c < s.size; ++c) {
        double sum = 0;
        for (std::int64_t j = row.first; j < row.last; ++j) {
          sum += row.p[at(j - row.first)] * problem.v.get(j, 0, c);
        }
        want.push_back(sum);
      }
      const double error = std::abs(problem.log_sum[at(i * s.heads + h)] - row.log_sum);
      log_sum_error = error < log_sum_error ? log_sum_error : error;
    }
  }
  REQUIRE(worst(problem.out, want, s.queries, s.type) < 1);
  REQUIRE(log_sum_error < 4e-6);
}

inline void check_backward(const KernelTable& table, Problem& problem) {
  const Shape& s = problem.shape;
  problem.backward(table);
  Doubles dq, dk(at(s.keys * s.size)), dv(at(s.keys * s.size));
  for (std::int64_t i = 0; i < s.queries; ++i) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const Problem::Row row = problem.row(i, h);
      Doubles dp;
      double delta = 0;  // of the output as it was stored
      for (std::int64_t c = 0; c < s.size; ++c) {
        delta += problem.dout.get(i, h, c) * problem.out.get(i, h, c);
      }
      for (std::int64_t j = row.first; j < row.last; ++j) {
        double sum = 0;
        const double p = row.p[at(j - row.first)];
        for (std::int64_t c = 0; c < s.size; ++c) {
          sum += problem.dout.get(i, h, c) * problem.v.get(j, 0, c);
          dv[at(j * s.size + c)] += p * problem.dout.get(i, h, c);
        }
        dp.push_back(sum);
      }
      Doubles of_query(at(s.size));
      for (std::int64_t j = row.first; j < row.last; ++j) {
        const std::size_t r = at(j - row.first);
        const double ds = row.p[r] * (dp[r] - delta) * problem.scale();
        for (std::int64_t c = 0; c < s.size; ++c) {
          of_query[at(c)] += ds * problem.k.get(j, 0, c);
          dk[at(j * s.size + c)] += ds * problem.q.get(i, h, c);
        }
      }
      dq.insert(dq.end(), of_query.begin(), of_query.end());
    }
  }
  REQUIRE(worst(problem.dv, dv, s.keys, s.type) < 1);
  REQUIRE(worst(problem.dq, dq, s.queries, s.type) < 1);
  REQUIRE(worst(problem.dk, dk, s.keys, s.type) < 1);
}

inline void check_decode(const KernelTable& table, Problem& problem, std::int64_t middle) {
  const Shape& s = problem.shape;
  const Space space = space_of(s.heads * kHeadStride);
  const std::int64_t first = s.window > 0 ? std::max<std::int64_t>(0, s.keys - s.window) : 0;
  // Two parts, put together as their user does.
  std::vector<float> out[2], maximum[2], sum[2];
  const std::int64_t ends[] = {first, std::max(first, middle), s.keys};
  for (std::size_t i = 0; i < 2; ++i) {
    out[i].assign(at(s.heads * s.size), std::nanf(""));
    maximum[i].assign(at(s.heads), std::nanf(""));
    sum[i] = maximum[i];
    table.attention_decode({.group = problem.group(),
                            .first = ends[i],
                            .last = ends[i + 1],
                            .out = out[i].data(),
                            .maximum = maximum[i].data(),
                            .sum = sum[i].data(),
                            .space = space.get()});
  }
  for (std::int64_t h = 0; h < s.heads; ++h) {
    const Problem::Row row = problem.row(s.queries - 1, h);
    const double most = std::max(maximum[0][at(h)], maximum[1][at(h)]);
    const double f[] = {std::exp(maximum[0][at(h)] - most), std::exp(maximum[1][at(h)] - most)};
    const double total = f[0] * sum[0][at(h)] + f[1] * sum[1][at(h)];
    REQUIRE(std::abs(most + std::log(total) - row.log_sum) < 4e-6);
    for (std::int64_t c = 0; c < s.size; ++c) {
      double want = 0;
      for (std::int64_t j = row.first; j < row.last; ++j) {
        want += row.p[at(j - row.first)] * problem.v.get(j, 0, c);
      }
      const std::size_t i = at(h * s.size + c);
      REQUIRE(std::abs((f[0] * out[0][i] + f[1] * out[1][i]) / total - want) < 4e-6);
    }
  }
}

}  // namespace lorapp::kernels
