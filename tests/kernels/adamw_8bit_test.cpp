// AdamW with moments in 8 bits: every table against a plain model of the rule, bit by bit, and what
// the rule keeps and does not hide.
#include "kernels/float16.hpp"
#include "kernels/rows_args.hpp"
#include "kernels/tables_under_test.hpp"
#include "support/normal_floats.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

namespace lorapp::kernels {
namespace {

using test::normal_floats;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");
constexpr AdamWStep kStep{0.999f, 0.98f, 0.1f, 0.02f, 0.3f, 3e-3f, 1e-8f, 0.7f};

std::vector<std::reference_wrapper<const KernelTable>> tables_with_8bit_moments() {
  std::vector<std::reference_wrapper<const KernelTable>> tables;
  for (const KernelTable* table : tables_under_test()) {
    if (table->adamw_8bit != nullptr) tables.push_back(*table);
  }
  return tables;
}

struct State {
  std::vector<float> p;
  std::vector<std::uint8_t> m, v;
  std::vector<float> m_absmax, v_absmax;

  explicit State(std::vector<float> parameters)
      : p(std::move(parameters)),
        m(p.size(), kZeroOfFirstMoment),
        v(p.size(), kZeroOfSecondMoment),
        m_absmax((p.size() + kMomentBlock - 1) / kMomentBlock),
        v_absmax(m_absmax.size()) {}

  AdamW8bitArgs args(const std::vector<float>& g, const AdamWStep& step) {
    return {p.data(),
            g.data(),
            m.data(),
            v.data(),
            m_absmax.data(),
            v_absmax.data(),
            static_cast<std::int64_t>(p.size()),
            step};
  }
};

// The same numbers with the same signs; NaN is NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::isnan(x) ? std::isnan(y) : bits_of(x) == bits_of(y);
  });
}

// The nearest of 256 values by looking at all of them, in double; ties to the lower.
int nearest(const DynamicMap& map, double x) {
  int best = 0;
  for (int i = 1; i < 256; ++i) {
    if (std::abs(x - double{map.value[i]}) < std::abs(x - double{map.value[best]})) best = i;
  }
  return best;
}

// A step for moments in vectors of their own, the whole buffer at a time.
void model_step(State& state, const std::vector<float>& g, const AdamWStep& step) {
  static const DynamicMap first = dynamic_map(), second = unsigned_dynamic_map();
  std::vector<float> m(g.size()), v(g.size());
  for (std::size_t i = 0; i < g.size(); ++i) {
    m[i] = first.value[state.m[i]] * state.m_absmax[i / kMomentBlock];
    v[i] = second.value[state.v[i]] * state.v_absmax[i / kMomentBlock];
    step.update(state.p[i], g[i], m[i], v[i]);
  }
  std::fill(state.m_absmax.begin(), state.m_absmax.end(), 0.0f);
  std::fill(state.v_absmax.begin(), state.v_absmax.end(), 0.0f);
  for (std::size_t i = 0; i < g.size(); ++i) {
    const auto take = [&](float& absmax, float moment) {
      if (!std::isfinite(moment)) absmax = kNan;
      if (!std::isnan(absmax)) absmax = std::max(absmax, std::abs(moment));
    };
    take(state.m_absmax[i / kMomentBlock], m[i]);
    take(state.v_absmax[i / kMomentBlock], v[i]);
  }
  for (std::size_t i = 0; i < g.size(); ++i) {
    const float m_absmax = state.m_absmax[i / kMomentBlock];
    const float v_absmax = state.v_absmax[i / kMomentBlock];
    int code = m_absmax == 0 ? 127 : nearest(first, m[i] / m_absmax);
    if (code == 127 && m[i] < 0) code = 126;
    state.m[i] = static_cast<std::uint8_t>(code);
    state.v[i] = static_cast<std::uint8_t>(v_absmax == 0 ? 0 : nearest(second, v[i] / v_absmax));
  }
}

}  // namespace

TEST_SUITE("AdamW with moments in 8 bits") {
  TEST_CASE("bounds in float32 give the codes of exact middles, beside each of them") {
    for (const DynamicMap& values : {dynamic_map(), unsigned_dynamic_map()}) {
      MomentMap map;
      for (int i = 0; i < 256; ++i) set_entry(map, values, i);
      for (int i = 0; i < 255; ++i) {
        CHECK(values.value[i] < values.value[i + 1]);
        CHECK(nearest_code(map, values.value[i]) == i);
        const float bound = map.bound[i];
        for (const float v : {std::nextafter(bound, -2.0f), bound, std::nextafter(bound, 2.0f)}) {
          CHECK(nearest_code(map, v) == encode8(values, v));
        }
        CHECK(nearest_code(map, bound) == i);
        CHECK(nearest_code(map, std::nextafter(bound, 2.0f)) == i + 1);
      }
      CHECK(nearest_code(map, 1.0f) == 255);
      CHECK(nearest_code(map, kNan) == 0);
    }
    CHECK(dynamic_map().value[kZeroOfFirstMoment] == 0);
    CHECK(unsigned_dynamic_map().value[kZeroOfSecondMoment] == 0);
  }

  TEST_CASE("every table's steps are the plain model's, bit by bit") {
    for (const KernelTable& table : tables_with_8bit_moments()) {
      for (const std::int64_t n : {1, 9, 255, 256, 257, 511, 2048, 2049, 5000}) {
        INFO(table.name, " n ", n);
        State got(normal_floats(n, 1)), want = got;
        for (int step = 0; step < 4; ++step) {
          auto g = normal_floats(n, static_cast<unsigned>(10 + step));
          for (std::size_t i = 0; i < g.size(); ++i) {
            // Blocks of other sizes; one whose second moments float32 holds as subnormals at best.
            const float sizes[] = {1, 1e-6f, 1e12f, 1e-21f, 1e-3f};
            g[i] *= sizes[i / kMomentBlock % 5];
            if (i % 11 == 3) g[i] = 0;
            if (i % 23 == 5) g[i] *= 1e-6f;
          }
          table.adamw_8bit(got.args(g, kStep));
          model_step(want, g, kStep);
          CHECK(same(got.p, want.p));
          CHECK(got.m == want.m);
          CHECK(got.v == want.v);
          CHECK(same(got.m_absmax, want.m_absmax));
          CHECK(same(got.v_absmax, want.v_absmax));
        }
        for (const float p : got.p) CHECK(std::isfinite(p));
      }
    }
  }

  TEST_CASE("without gradients parameters decay only, and a block of zeros stays one") {
    for (const KernelTable& table : tables_with_8bit_moments()) {
      INFO(table.name);
      State state(normal_floats(600, 1));
      const State before = state;
      const std::vector<float> g(600, -0.0f);
      for (int step = 0; step < 2; ++step) table.adamw_8bit(state.args(g, kStep));
      for (std::size_t i = 0; i < g.size(); ++i) {
        CHECK(state.p[i] == before.p[i] * kStep.decay * kStep.decay);
      }
      CHECK(state.m == before.m);
      CHECK(state.v == before.v);
      CHECK(same(state.m_absmax, before.m_absmax));
      CHECK(same(state.v_absmax, before.v_absmax));
    }
  }

  TEST_CASE("a first moment below zero stays below, however small beside its block's largest") {
    for (const KernelTable& table : tables_with_8bit_moments()) {
      INFO(table.name);
      State state(std::vector<float>(300, 0.0f));
      std::vector<float> g(300, 1e-12f);
      g[0] = 1;
      for (std::size_t i = 1; i < g.size(); i += 2) g[i] = -g[i];
      table.adamw_8bit(state.args(g, kStep));
      CHECK(state.m[0] == 255);
      for (std::size_t i = 1; i < 256; ++i) CHECK(state.m[i] == (i % 2 == 1 ? 126 : 127));
    }
  }

  TEST_CASE("what is not finite shows in its parameter, then in its block, and in no other") {
    for (const KernelTable& table : tables_with_8bit_moments()) {
      for (const float bad : {kNan, kInfinity, -kInfinity, 1e30f}) {  // whose square is infinite
        INFO(table.name, " ", bad);
        State state(normal_floats(700, 1));
        auto g = normal_floats(700, 2);
        g[300] = bad;
        table.adamw_8bit(state.args(g, kStep));
        for (std::size_t i = 0; i < g.size(); ++i) {
          if (i != 300) CHECK(std::isfinite(state.p[i]));
        }
        if (!std::isfinite(bad)) CHECK(std::isnan(state.p[300]));
        CHECK(std::isnan(state.v_absmax[1]));
        CHECK(std::isfinite(state.v_absmax[0]));
        CHECK(std::isfinite(state.v_absmax[2]));
        table.adamw_8bit(state.args(normal_floats(700, 3), kStep));
        for (std::size_t i = 0; i < g.size(); ++i) {
          CHECK(std::isnan(state.p[i]) == (i / kMomentBlock == 1));
        }
      }
    }
  }

  TEST_CASE("on a bowl the steps end where those with moments in float32 end") {
    const auto target = normal_floats(1000, 1);
    for (const KernelTable& table : tables_with_8bit_moments()) {
      INFO(table.name);
      State state(std::vector<float>(target.size(), 0.0f));
      std::vector<float> p = state.p, m = p, v = p;
      for (int t = 1; t <= 600; ++t) {
        const double b1 = std::pow(0.9, t), b2 = std::pow(0.999, t), lr = 0.03 * (1 - t / 600.0);
        const AdamWStep step{1,
                             0.999f,
                             0.1f,
                             0.001f,
                             static_cast<float>(std::sqrt(1 - b2)),
                             static_cast<float>(lr / (1 - b1)),
                             1e-8f,
                             1};
        std::vector<float> g(target.size()), g32(target.size());
        for (std::size_t i = 0; i < g.size(); ++i) {
          g[i] = state.p[i] - target[i];
          g32[i] = p[i] - target[i];
          step.update(p[i], g32[i], m[i], v[i]);
        }
        table.adamw_8bit(state.args(g, step));
      }
      double distance = 0, distance32 = 0, size = 0;
      for (std::size_t i = 0; i < target.size(); ++i) {
        distance += std::pow(state.p[i] - target[i], 2);
        distance32 += std::pow(p[i] - target[i], 2);
        size += std::pow(target[i], 2);
      }
      CHECK(std::sqrt(distance32 / size) < 0.002);
      CHECK(std::sqrt(distance / size) < 0.002);
    }
  }
}

}  // namespace lorapp::kernels
