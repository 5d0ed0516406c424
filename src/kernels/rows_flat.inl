// Kernels over flat buffers (rows_args.hpp): the optimizer's step, norms, dropout.
#pragma once

#include "kernels/rows.inl"

namespace lorapp::kernels {
namespace {

void adamw_vector(const AdamWStep& step, float* p, const float* g, float* m, float* v) {
  const Vec gradient = mul(load(g), splat(step.clip));
  const Vec decayed = mul(load(p), splat(step.decay));
  const Vec old = load(m);
  const Vec first = add(old, mul(splat(step.one_minus_beta1), sub(gradient, old)));
  const Vec second = add(mul(load(v), splat(step.beta2)),
                         mul(splat(step.one_minus_beta2), mul(gradient, gradient)));
  const Vec root = add(div(sqrt_of(second), splat(step.bias_correction2_sqrt)), splat(step.eps));
  store(p, sub(decayed, div(mul(splat(step.step_size), first), root)));
  store(m, first);
  store(v, second);
}

void adamw(const AdamWArgs& args) {
  count_call();
  const AdamWArgs a = args;  // beyond the reach of the stores
  std::int64_t i = 0;
  for (; i + kLanes <= a.n; i += kLanes) adamw_vector(a.step, a.p + i, a.g + i, a.m + i, a.v + i);
  if (i == a.n) return;
  float p[kLanes] = {}, g[kLanes] = {}, m[kLanes] = {}, v[kLanes] = {};
  for (std::int64_t k = i; k < a.n; ++k) {
    p[k - i] = a.p[k];
    g[k - i] = a.g[k];
    m[k - i] = a.m[k];
    v[k - i] = a.v[k];
  }
  adamw_vector(a.step, p, g, m, v);
  for (std::int64_t k = i; k < a.n; ++k) {
    a.p[k] = p[k - i];
    a.m[k] = m[k - i];
    a.v[k] = v[k - i];
  }
}

double sum_of_squares(const float* x, std::int64_t n) {
  count_call();
  SquareSums sums;
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) sums.add(x + i);
  if (i < n) {
    float rest[16] = {};
    for (std::int64_t k = i; k < n; ++k) rest[k - i] = x[k];
    sums.add(rest);
  }
  double lane[16];
  sums.get(lane);
  for (int step = 8; step > 0; step /= 2) {
    for (int k = 0; k < step; ++k) lane[k] += lane[k + step];
  }
  return lane[0];
}

void dropout(const DropoutArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const Vec scale = splat(args.keep_scale);
    const auto* x = as(t, args.x);
    auto* y = as(t, args.y);
    each_step(args.n, [&](std::int64_t i, auto there) {
      const std::uint64_t pair = args.first_pair + static_cast<std::uint64_t>(i / 2);
      Words first = random_words(args.key, pair);
      Words second = random_words(args.key, pair + kLanes / 2);
      order_words(t, first, second);
      const Two value = both([&](Vec v) { return mul(v, scale); }, load_at(t, x + i, there));
      store_at(
          t, y + i,
          Two{keep(first, args.threshold, value.first), keep(second, args.threshold, value.second)},
          there);
    });
  });
}

}  // namespace
}  // namespace lorapp::kernels
