// Kernels over rows (rows_args.hpp), in the vocabulary of vec_<isa>.hpp.
#pragma once

#include "kernels/math.inl"

namespace lorapp::kernels {
namespace {

// Elements go through two vectors at a time. A step of which all elements are there, and one of
// which the first n are.
constexpr int kTwoLanes = 2 * kLanes;
static_assert(kTwoLanes <= kRowStep);
struct Whole {};
struct Part {
  std::int64_t n;
};

template <class T>
Two load_at(T t, const typename T::Storage* p, Whole, float = 0.0f) {
  return load_two(t, p);
}
template <class T>
void store_at(T t, typename T::Storage* p, const Two& x, Whole) {
  store_two(t, p, x);
}
/// Elements that are not there count as `fill`.
template <class T>
Two load_at(T t, const typename T::Storage* p, Part part, float fill = 0.0f) {
  typename T::Storage step[kTwoLanes];
  for (int i = 0; i < kTwoLanes; ++i) step[i] = i < part.n ? p[i] : T::store(fill);
  return load_two(t, step);
}
template <class T>
void store_at(T t, typename T::Storage* p, const Two& x, Part part) {
  typename T::Storage step[kTwoLanes];
  store_two(t, step, x);
  for (std::int64_t i = 0; i < part.n; ++i) p[i] = step[i];
}

/// f of the first and of the second vectors.
template <class F, class... X>
LORAPP_HD Two both(F f, const X&... x) {
  return {f(x.first...), f(x.second...)};
}

/// body(index of the first element, Whole or Part) for the steps of n elements.
template <class F>
LORAPP_HD void each_step(std::int64_t n, F body) {
  std::int64_t i = 0;
  for (; i + kTwoLanes <= n; i += kTwoLanes) body(i, Whole());
  if (i < n) body(i, Part{n - i});
}

/// The total of what more(sum, index, Whole or Part) adds to a sum, from step to step.
template <class F>
LORAPP_HD float sum_over(std::int64_t n, F more) {
  const Two nothing = {zero(), zero()};
  Two a = nothing, b = nothing;  // two, since an addition waits for the one before
  std::int64_t i = 0;
  for (; i + 2 * kTwoLanes <= n; i += 2 * kTwoLanes) {
    a = more(a, i, Whole());
    b = more(b, i + kTwoLanes, Whole());
  }
  if (i + kTwoLanes <= n) {
    a = more(a, i, Whole());
    i += kTwoLanes;
  }
  if (i < n) b = more(b, i, Part{n - i});
  return lane_sum(add(add(a.first, a.second), add(b.first, b.second)));
}

/// f(F32() or …) for the type.
template <class F>
void with_type(Float type, F f) {
  switch (type) {
    case Float::f32:
      return f(F32());
    case Float::bf16:
      return f(Bf16());
    case Float::f16:
      return f(F16());
  }
}

template <class T>
Vec rounded(T, const Vec& x) {
  return round_finite<T::kFloat>(x);
}

template <class T>
const typename T::Storage* as(T, const void* p) {
  return static_cast<const typename T::Storage*>(p);
}
template <class T>
typename T::Storage* as(T, void* p) {
  return static_cast<typename T::Storage*>(p);
}

void rms_norm(const RmsNormArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const auto* weight = as(t, args.weight);
    for (std::int64_t row = 0; row < args.rows; ++row) {
      const auto* x = as(t, args.x) + row * args.size;
      auto* y = as(t, args.y) + row * args.size;
      const float squares = sum_over(args.size, [&](const Two& sum, std::int64_t i, auto there) {
        return both([](Vec s, Vec v) { return fma(v, v, s); }, sum, load_at(t, x + i, there));
      });
      const float mean = squares / static_cast<float>(args.size);
      const Vec scale = div(splat(1.0f), sqrt_of(splat(mean + args.eps)));
      if (args.scale != nullptr) {
        float lane[kLanes];
        store(lane, scale);
        // 0 where the squares are too large for f32: that row has no gradient, and must not seem
        // to.
        args.scale[row] = lane[0] == 0.0f ? from_bits(0x7fc00000u) : lane[0];
      }
      each_step(args.size, [&](std::int64_t i, auto there) {
        const Two value = both([&](Vec v, Vec w) { return mul(w, rounded(t, mul(v, scale))); },
                               load_at(t, x + i, there), load_at(t, weight + i, there));
        store_at(t, y + i, value, there);
      });
    }
  });
}

void rms_norm_backward(const RmsNormBackwardArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const auto* weight = as(t, args.weight);
    for (std::int64_t row = 0; row < args.rows; ++row) {
      const auto* x = as(t, args.x) + row * args.size;
      const auto* dy = as(t, args.dy) + row * args.size;
      const Vec scale = splat(args.scale[row]);
      if (args.dx != nullptr) {
        auto* dx = as(t, args.dx) + row * args.size;
        const float sum = sum_over(args.size, [&](const Two& so_far, std::int64_t i, auto there) {
          return both([&](Vec s, Vec v, Vec w, Vec d) { return fma(mul(d, w), mul(v, scale), s); },
                      so_far, load_at(t, x + i, there), load_at(t, weight + i, there),
                      load_at(t, dy + i, there));
        });
        const Vec minus_mean = splat(-sum / static_cast<float>(args.size));
        each_step(args.size, [&](std::int64_t i, auto there) {
          const auto gradient = [&](Vec v, Vec w, Vec d) {
            return mul(scale, fma(mul(v, scale), minus_mean, mul(d, w)));
          };
          store_at(t, dx + i,
                   both(gradient, load_at(t, x + i, there), load_at(t, weight + i, there),
                        load_at(t, dy + i, there)),
                   there);
        });
      }
      if (args.dweight != nullptr) {
        // One by one: f32 and 16-bit elements lie in vectors in different orders.
        for (std::int64_t i = 0; i < args.size; ++i) {
          const auto value = [&](auto element) { return decltype(t)::load(element); };
          const float normal = round_to(args.type, value(x[i]) * args.scale[row]);
          args.dweight[i] += value(dy[i]) * normal;
        }
      }
    }
  });
}

void rotate(const RotateArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const std::int64_t half = args.size / 2;
    const Vec sign = splat(args.back ? -1.0f : 1.0f);
    const auto product = [&](Vec a, Vec b) { return rounded(t, mul(a, b)); };
    const bool turns = args.cos != nullptr;
    for (std::int64_t token = 0; token < args.tokens; ++token) {
      const auto* cos = turns ? as(t, args.cos) + token * half : nullptr;
      const auto* sin = turns ? as(t, args.sin) + token * half : nullptr;
      for (std::int64_t head = 0; head < args.heads; ++head) {
        const auto* x = as(t, args.x) + token * args.token_stride + head * args.head_stride;
        auto* y = as(t, args.y) + rotated_begin(args, token, head);
        if (!turns) {
          __builtin_memcpy(y, x, static_cast<std::size_t>(args.size) * sizeof *x);
          continue;
        }
        each_step(half, [&](std::int64_t i, auto there) {
          const Two a = load_at(t, x + i, there), b = load_at(t, x + half + i, there);
          const Two c = load_at(t, cos + i, there);
          const Two s = both([&](Vec v) { return mul(v, sign); }, load_at(t, sin + i, there));
          const Two first =
              both([&](Vec p, Vec q, Vec u, Vec v) { return sub(product(p, u), product(q, v)); }, a,
                   b, c, s);
          const Two second =
              both([&](Vec p, Vec q, Vec u, Vec v) { return add(product(q, u), product(p, v)); }, a,
                   b, c, s);
          store_at(t, y + i, first, there);
          store_at(t, y + half + i, second, there);
        });
      }
    }
  });
}

/// 1 + exp(-x): what silu(x) and σ(x) divide by.
Vec one_plus_exp_of_minus(const Vec& x) { return add(splat(1.0f), exp_of(sub(zero(), x))); }

void swiglu(const SwiGluArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const auto *gate = as(t, args.gate), *up = as(t, args.up);
    auto* y = as(t, args.y);
    each_step(args.n, [&](std::int64_t i, auto there) {
      const auto value = [&](Vec g, Vec u) {
        return mul(rounded(t, div(g, one_plus_exp_of_minus(g))), u);
      };
      store_at(t, y + i, both(value, load_at(t, gate + i, there), load_at(t, up + i, there)),
               there);
    });
  });
}

void swiglu_backward(const SwiGluBackwardArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) {
    const Vec one = splat(1.0f);
    const auto *gate = as(t, args.gate), *up = as(t, args.up), *dy = as(t, args.dy);
    auto *dgate = as(t, args.dgate), *dup = as(t, args.dup);
    each_step(args.n, [&](std::int64_t i, auto there) {
      const Two g = load_at(t, gate + i, there), d = load_at(t, dy + i, there);
      const Two sigma = both([&](Vec v) { return div(one, one_plus_exp_of_minus(v)); }, g);
      const auto of_gate = [&](Vec v, Vec u, Vec grad, Vec s) {
        return mul(mul(grad, u), mul(s, fma(v, sub(one, s), one)));
      };
      const auto of_up = [&](Vec v, Vec grad, Vec s) { return mul(grad, rounded(t, mul(v, s))); };
      store_at(t, dgate + i, both(of_gate, g, load_at(t, up + i, there), d, sigma), there);
      store_at(t, dup + i, both(of_up, g, d, sigma), there);
    });
  });
}

constexpr float kMinusInfinity = -__builtin_inff();

/// The largest of n elements, those that are NaN aside.
template <class T>
float largest_of(T t, const typename T::Storage* x, std::int64_t n) {
  Two most = {splat(kMinusInfinity), splat(kMinusInfinity)};
  each_step(n, [&](std::int64_t i, auto there) {
    most = both([](Vec v, Vec m) { return max_of(v, m); }, load_at(t, x + i, there, kMinusInfinity),
                most);
  });
  float lane[kLanes];
  store(lane, max_of(most.first, most.second));
  float largest = lane[0];
  for (const float each : lane) largest = each > largest ? each : largest;
  return largest;
}

template <class T>
void cross_entropy_rows(T t, const CrossEntropyArgs& args) {
  for (std::int64_t row = 0; row < args.rows; ++row) {
    auto* x = as(t, args.logits) + row * args.size;
    auto* label = x + args.labels[row];
    const float picked = T::load(*label);
    const float largest = largest_of(t, x, args.size);
    const auto exponential = [&](Vec v) { return exp_of(sub(v, splat(largest))); };
    // Where the exponentials are between the passes: f32 logits give their place.
    const auto keep_exponentials = [&](std::int64_t i, const Two& e, auto there) {
      if constexpr (T::kFloat == Float::f32) {
        store_at(t, x + i, e, there);
      } else {
        store_two(F32(), args.scratch + i, e);
      }
    };
    const auto kept = [&](std::int64_t i, auto there) {
      if constexpr (T::kFloat == Float::f32) {
        return load_at(t, x + i, there);
      } else {
        return load_two(F32(), args.scratch + i);
      }
    };
    const float sum = sum_over(args.size, [&](const Two& so_far, std::int64_t i, auto there) {
      const Two e = both(exponential, load_at(t, x + i, there, kMinusInfinity));
      if (args.gradient) keep_exponentials(i, e, there);
      return both([](Vec s, Vec v) { return add(s, v); }, so_far, e);
    });
    args.largest[row] = largest;
    args.sum[row] = sum;
    args.picked[row] = picked;
    if (!args.gradient) continue;
    const Vec scale = splat(args.grad_scale / sum);
    each_step(args.size, [&](std::int64_t i, auto there) {
      store_at(t, x + i, both([&](Vec e) { return mul(e, scale); }, kept(i, there)), there);
    });
    float of_label[kLanes];
    store(of_label, mul(exponential(splat(picked)), scale));
    *label = T::store(of_label[0] - args.grad_scale);
  }
}

void cross_entropy(const CrossEntropyArgs& args) {
  count_call();
  with_type(args.type, [&](auto t) { cross_entropy_rows(t, args); });
}

}  // namespace
}  // namespace lorapp::kernels
