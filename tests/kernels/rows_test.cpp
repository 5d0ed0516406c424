// Kernels over rows and flat buffers: every table against the rule in double, or against the scalar
// rule bit by bit, at sizes that do and do not fill vectors.
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"
#include "kernels/rows_args.hpp"
#include "kernels/tables_under_test.hpp"
#include "support/normal_floats.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace lorapp::kernels {
namespace {

using test::normal_floats;

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};
constexpr std::int64_t kSizes[] = {1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
const float kNan = std::nanf("");

// Half the distance of neighbours, relative; what a result may be off for having been computed in
// f32 comes on top.
double half_ulp(Float type) {
  return type == Float::f32 ? 0 : type == Float::bf16 ? 0x1p-8 : 0x1p-11;
}

/// Elements in a type's storage.
class Row {
 public:
  Row(Float type, std::vector<float> values) : type_(type), wide_(std::move(values)) {
    for (const float x : wide_) {
      half_.push_back(type == Float::bf16 ? f32_to_bf16(x) : f32_to_f16(x));
    }
    for (float& x : wide_) x = round_to(type, x);
  }
  Row(Float type, std::int64_t n) : Row(type, std::vector<float>(static_cast<std::size_t>(n), 9)) {}

  void* data() { return type_ == Float::f32 ? static_cast<void*>(wide_.data()) : half_.data(); }
  float operator[](std::int64_t i) const {
    const auto k = static_cast<std::size_t>(i);
    if (type_ == Float::f32) return wide_[k];
    return type_ == Float::bf16 ? bf16_to_f32(half_[k]) : f16_to_f32(half_[k]);
  }

 private:
  Float type_;
  std::vector<float> wide_;
  std::vector<std::uint16_t> half_;
};

/// The tables that have kernels of rows.
std::vector<std::reference_wrapper<const KernelTable>> row_tables() {
  std::vector<std::reference_wrapper<const KernelTable>> tables;
  for (const KernelTable* table : tables_under_test()) {
    if (table->rms_norm != nullptr) tables.push_back(*table);
  }
  return tables;
}

/// body(table, type, size), with their names in every failure.
template <class F>
void for_each_case(F body) {
  for (const KernelTable& table : row_tables()) {
    for (const Float type : kTypes) {
      for (const std::int64_t size : kSizes) {
        INFO(table.name, " type ", static_cast<int>(type), " size ", size);
        body(table, type, size);
      }
    }
  }
}

// `extra` is what all roundings but the last may add, as a difference.
void check_close(double got, double want, Float type, double extra = 0) {
  const double smallest = type == Float::f16 ? 0x1p-24 : 1e-37;  // steps of subnormal results
  CHECK(std::abs(got - want) <= (half_ulp(type) + 1e-6) * std::abs(want) + extra + smallest);
}

double sigma(double x) { return 1 / (1 + std::exp(-x)); }

TEST_SUITE("rows") {
  TEST_CASE("rms_norm: every table normalizes as sums in double do") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      constexpr std::int64_t kRows = 3;
      Row x(type, normal_floats(kRows * size, 1, 3)), weight(type, normal_floats(size, 2)),
          y(type, kRows * size);
      std::vector<float> scale(kRows);
      table.rms_norm({x.data(), type, kRows, size, weight.data(), 1e-5f, y.data(), scale.data()});
      for (std::int64_t row = 0; row < kRows; ++row) {
        double squares = 0;
        for (std::int64_t i = row * size; i < (row + 1) * size; ++i) squares += double{x[i]} * x[i];
        const double want = 1 / std::sqrt(squares / static_cast<double>(size) + 1e-5);
        CHECK(std::abs(scale[static_cast<std::size_t>(row)] / want - 1) < 5e-7);
        for (std::int64_t i = 0; i < size; ++i) {
          const double normal = x[row * size + i] * want;
          check_close(y[row * size + i], weight[i] * normal, type,
                      half_ulp(type) * std::abs(weight[i] * normal) * 1.01 +
                          (type == Float::f16 ? 0x1p-24 * std::abs(weight[i]) : 0));
        }
      }
    });
  }

  TEST_CASE("rms_norm: the gradients of x and weight are those in double") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      constexpr std::int64_t kRows = 3;
      Row x(type, normal_floats(kRows * size, 1, 3)), weight(type, normal_floats(size, 2));
      Row dy(type, normal_floats(kRows * size, 3)), dx(type, kRows * size);
      std::vector<float> scale(kRows), dweight(static_cast<std::size_t>(size), 0.5f);
      for (std::int64_t row = 0; row < kRows; ++row) {
        double squares = 0;
        for (std::int64_t i = row * size; i < (row + 1) * size; ++i) squares += double{x[i]} * x[i];
        scale[static_cast<std::size_t>(row)] =
            static_cast<float>(1 / std::sqrt(squares / static_cast<double>(size) + 1e-5));
      }
      table.rms_norm_backward({x.data(), type, kRows, size, weight.data(), scale.data(), dy.data(),
                               dx.data(), dweight.data()});
      std::vector<double> want(static_cast<std::size_t>(size), 0.5);
      for (std::int64_t row = 0; row < kRows; ++row) {
        const double s = scale[static_cast<std::size_t>(row)];
        double mean = 0, magnitude = 0;
        for (std::int64_t i = 0; i < size; ++i) {
          const double term = double{dy[row * size + i]} * weight[i] * x[row * size + i] * s;
          mean += term / static_cast<double>(size);
          magnitude += std::abs(term) / static_cast<double>(size);
          want[static_cast<std::size_t>(i)] +=
              dy[row * size + i] *
              double{round_to(type, x[row * size + i] * static_cast<float>(s))};
        }
        for (std::int64_t i = 0; i < size; ++i) {
          const double g = double{dy[row * size + i]} * weight[i];
          const double normal = x[row * size + i] * s;
          check_close(dx[row * size + i], s * (g - normal * mean), type,
                      1e-6 * s * (std::abs(g) + std::abs(normal) * magnitude));
        }
      }
      for (std::int64_t i = 0; i < size; ++i) {
        const auto k = static_cast<std::size_t>(i);
        CHECK(std::abs(dweight[k] - want[k]) < 1e-5);
      }
      // Either alone is the same.
      Row alone(type, kRows * size);
      std::vector<float> dweight_alone(static_cast<std::size_t>(size), 0.5f);
      table.rms_norm_backward({x.data(), type, kRows, size, weight.data(), scale.data(), dy.data(),
                               alone.data(), nullptr});
      table.rms_norm_backward({x.data(), type, kRows, size, weight.data(), scale.data(), dy.data(),
                               nullptr, dweight_alone.data()});
      for (std::int64_t i = 0; i < kRows * size; ++i) CHECK(alone[i] == dx[i]);
      CHECK(dweight_alone == dweight);
    });
  }

  TEST_CASE("rotate: every table turns heads with every product and sum rounded, and back") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t half) {
      constexpr std::int64_t kTokens = 2, kHeads = 3;
      const std::int64_t size = 2 * half, head_stride = size + 3;
      const std::int64_t token_stride = kHeads * head_stride + 5;
      Row x(type, normal_floats(kTokens * token_stride, 1)), y(type, kTokens * kHeads * size);
      Row cos(type, normal_floats(kTokens * half, 2)), sin(type, normal_floats(kTokens * half, 3));
      for (const bool back : {false, true}) {
        table.rotate({x.data(), type, kTokens, kHeads, size, token_stride, head_stride, cos.data(),
                      sin.data(), back, y.data()});
        const auto round = [&](float value) { return round_to(type, value); };
        for (std::int64_t t = 0; t < kTokens; ++t) {
          for (std::int64_t h = 0; h < kHeads; ++h) {
            for (std::int64_t i = 0; i < half; ++i) {
              const std::int64_t from = t * token_stride + h * head_stride + i;
              const std::int64_t to = (t * kHeads + h) * size + i;
              const float a = x[from], b = x[from + half], c = cos[t * half + i];
              const float s = back ? -sin[t * half + i] : sin[t * half + i];
              CHECK(y[to] == round(round(a * c) - round(b * s)));
              CHECK(y[to + half] == round(round(b * c) + round(a * s)));
            }
          }
        }
      }
    });
  }

  TEST_CASE("rotate: keys go into rows of a cache turned, values as they are, and nothing else") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t half) {
      constexpr std::int64_t kTokens = 2, kHeads = 3, kCapacity = 5, kBegin = 1;
      const std::int64_t size = 2 * half, row = kHeads * size;
      Row x(type, normal_floats(kTokens * row, 1)), dense(type, kTokens * row);
      Row cos(type, normal_floats(kTokens * half, 2)), sin(type, normal_floats(kTokens * half, 3));
      table.rotate({x.data(), type, kTokens, kHeads, size, row, size, cos.data(), sin.data(), false,
                    dense.data()});
      const std::int64_t held = kHeads * kCapacity * size;
      for (const bool turns : {true, false}) {
        const Row before(type, normal_floats(held, 4));
        Row cache = before;
        auto* first =
            static_cast<std::byte*>(cache.data()) + kBegin * size * (type == Float::f32 ? 4 : 2);
        table.rotate({x.data(), type, kTokens, kHeads, size, row, size,
                      turns ? cos.data() : nullptr, turns ? sin.data() : nullptr, false, first,
                      size, kCapacity * size});
        for (std::int64_t i = 0; i < held; ++i) {
          const std::int64_t head = i / (kCapacity * size), at = i / size % kCapacity - kBegin;
          const Row& want = turns ? dense : x;
          CHECK(cache[i] ==
                (at < 0 || at >= kTokens ? before[i] : want[at * row + head * size + i % size]));
        }
      }
    });
  }

  TEST_CASE("swiglu: every table's value and gradients are those in double") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      for (const float spread : {1.0f, 30.0f}) {
        Row gate(type, normal_floats(size, 1, spread)), up(type, normal_floats(size, 2));
        Row dy(type, normal_floats(size, 3));
        Row y(type, size), dgate(type, size), dup(type, size);
        table.swiglu({gate.data(), up.data(), type, size, y.data()});
        table.swiglu_backward(
            {gate.data(), up.data(), dy.data(), type, size, dgate.data(), dup.data()});
        for (std::int64_t i = 0; i < size; ++i) {
          const double g = gate[i], s = sigma(g), silu = g * s;
          // Twice rounded; in f16 silu may be subnormal.
          const double inner =
              half_ulp(type) * std::abs(silu) * 1.01 + (type == Float::f16 ? 0x1p-24 : 1e-36);
          check_close(y[i], silu * up[i], type, inner * std::abs(up[i]));
          check_close(dup[i], silu * dy[i], type, inner * std::abs(dy[i]));
          const double slope = s * (1 + g * (1 - s));
          check_close(dgate[i], double{dy[i]} * up[i] * slope, type,
                      1e-6 * std::abs(double{dy[i]} * up[i]) * s * (1 + std::abs(g)));
        }
      }
    });
  }

  TEST_CASE("swiglu: results may take the place of operands, to the same bits") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      const Row gate(type, normal_floats(size, 1, 3)), up(type, normal_floats(size, 2));
      const Row dy(type, normal_floats(size, 3));
      Row operands[] = {gate, up, dy}, y(type, size), dgate(type, size), dup(type, size);
      table.swiglu({operands[0].data(), operands[1].data(), type, size, y.data()});
      table.swiglu_backward({operands[0].data(), operands[1].data(), operands[2].data(), type, size,
                             dgate.data(), dup.data()});
      const auto same = [&](const Row& a, const Row& b) {
        for (std::int64_t i = 0; i < size; ++i) CHECK(a[i] == b[i]);
      };
      for (const int place : {0, 1}) {
        Row own[] = {gate, up};
        table.swiglu({own[0].data(), own[1].data(), type, size, own[place].data()});
        same(own[place], y);
        same(own[1 - place], place == 0 ? up : gate);
      }
      for (int of_gate = 0; of_gate < 3; ++of_gate) {
        for (int of_up = 0; of_up < 3; ++of_up) {
          if (of_gate == of_up) continue;
          Row own[] = {gate, up, dy};
          table.swiglu_backward({own[0].data(), own[1].data(), own[2].data(), type, size,
                                 own[of_gate].data(), own[of_up].data()});
          same(own[of_gate], dgate);
          same(own[of_up], dup);
        }
      }
    });
  }

  TEST_CASE("swiglu: silu is exact at both ends and passes NaN") {
    for (const KernelTable& table : row_tables()) {
      INFO(table.name);
      std::vector<float> gate = {-1e30f, -200, -0.0f, 0, 90, 1e30f, kInfinity, kNan};
      std::vector<float> up(gate.size(), 2), y(gate.size());
      table.swiglu(
          {gate.data(), up.data(), Float::f32, static_cast<std::int64_t>(gate.size()), y.data()});
      const std::vector<float> want = {0, 0, 0, 0, 180, 2e30f, kInfinity};
      for (std::size_t i = 0; i < want.size(); ++i) CHECK(y[i] == want[i]);
      CHECK(std::isnan(y.back()));
    }
  }

  TEST_CASE("cross_entropy: every table's loss and gradient are those in double") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      constexpr std::int64_t kRows = 3;
      constexpr float kScale = 0.25f;
      for (const float spread : {1.0f, 60.0f}) {
        const Row given(type, normal_floats(kRows * size, 1, spread));
        Row logits = given;
        const std::vector<std::int64_t> labels = {0, size / 2, size - 1};
        std::vector<float> largest(kRows), sum(kRows), picked(kRows);
        std::vector<float> scratch(static_cast<std::size_t>(size + kRowStep));
        for (const bool gradient : {false, true}) {
          table.cross_entropy({logits.data(), type, kRows, size, labels.data(), gradient, kScale,
                               largest.data(), sum.data(), picked.data(), scratch.data()});
          for (std::int64_t row = 0; row < kRows; ++row) {
            const auto r = static_cast<std::size_t>(row);
            double most = -1e300, total = 0;
            for (std::int64_t i = 0; i < size; ++i) {
              most = std::max(most, double{given[row * size + i]});
            }
            for (std::int64_t i = 0; i < size; ++i) total += std::exp(given[row * size + i] - most);
            CHECK(largest[r] == most);
            CHECK(picked[r] == given[row * size + labels[r]]);
            CHECK(std::abs(sum[r] / total - 1) < 1e-6);
            for (std::int64_t i = 0; i < size; ++i) {
              const double softmax = std::exp(given[row * size + i] - most) / total;
              const double want = (softmax - (i == labels[r] ? 1 : 0)) * kScale;
              if (gradient) {
                // The exponent, too, is rounded to f32.
                const double below = most - given[row * size + i];
                check_close(logits[row * size + i], want, type,
                            (1e-6 + 0x1p-24 * below) * kScale * softmax + 1e-37);
              } else {
                CHECK(logits[row * size + i] == given[row * size + i]);
              }
            }
          }
        }
      }
    });
  }

  TEST_CASE("cross_entropy: NaN and infinite logits reach the loss of their row alone") {
    for (const KernelTable& table : row_tables()) {
      for (const std::int64_t size : {7, 33, 100}) {
        for (const float bad : {kNan, kInfinity, -kInfinity}) {
          INFO(table.name, " size ", size, " ", bad);
          std::vector<float> logits = normal_floats(2 * size, 1);
          logits[static_cast<std::size_t>(size - 2)] = bad;
          const std::vector<std::int64_t> labels = {1, 1};
          std::vector<float> largest(2), sum(2), picked(2);
          table.cross_entropy({logits.data(), Float::f32, 2, size, labels.data(), true, 1,
                               largest.data(), sum.data(), picked.data(), nullptr});
          CHECK(std::isnan(sum[0]) == (bad != -kInfinity));
          CHECK(std::isnan(logits[0]) == (bad != -kInfinity));
          if (bad == -kInfinity) CHECK(logits[static_cast<std::size_t>(size - 2)] == 0);
          CHECK(std::isfinite(sum[1]));
        }
      }
    }
  }

  TEST_CASE("rms_norm: NaN and infinity reach their row alone") {
    for (const KernelTable& table : row_tables()) {
      for (const Float type : kTypes) {
        for (const float bad : {kNan, kInfinity}) {
          INFO(table.name, " type ", static_cast<int>(type), " ", bad);
          std::vector<float> values = normal_floats(2 * 33, 1);
          values[5] = bad;
          Row x(type, values), weight(type, normal_floats(33, 2)), y(type, 2 * 33);
          table.rms_norm({x.data(), type, 2, 33, weight.data(), 1e-5f, y.data(), nullptr});
          CHECK(std::isnan(y[5]));
          for (std::int64_t i = 33; i < 66; ++i) CHECK(std::isfinite(y[i]));
        }
      }
    }
  }

  TEST_CASE("adamw: every table's step is the scalar rule bit by bit") {
    for_each_case([](const KernelTable& table, Float, std::int64_t size) {
      std::vector<float> p = normal_floats(size, 1), g = normal_floats(size, 2),
                         m = normal_floats(size, 3, 0.1f);
      std::vector<float> v = normal_floats(size, 4, 0.01f);
      for (float& each : v) each = std::abs(each);
      g[0] = size % 2 == 0 ? kNan : 0.0f;
      const AdamWStep step{0.999f, 0.98f, 0.1f, 0.02f, 0.3f, 3e-3f, 1e-8f, 0.7f};
      auto want_p = p, want_m = m, want_v = v;
      for (std::size_t i = 0; i < p.size(); ++i) {
        step.update(want_p[i], g[i], want_m[i], want_v[i]);
      }
      table.adamw({p.data(), g.data(), m.data(), v.data(), size, step});
      for (std::size_t i = size % 2 == 0 ? 1 : 0; i < p.size(); ++i) {
        CHECK(p[i] == want_p[i]);
        CHECK(m[i] == want_m[i]);
        CHECK(v[i] == want_v[i]);
      }
      if (size % 2 == 0) CHECK(std::isnan(p[0]));
    });
  }

  TEST_CASE("sum_of_squares: every table gives the same bits, the sum in double") {
    const KernelTable& reference = *find_table("scalar");
    for (const std::int64_t size : kSizes) {
      const std::vector<float> x = normal_floats(size, 1, 100);
      double want = 0;
      for (const float each : x) want += double{each} * each;
      const double scalar = reference.sum_of_squares(x.data(), size);
      CHECK(std::abs(scalar / want - 1) < 1e-14);
      for (const KernelTable& table : compiled_tables()) {
        if (can_run(table)) CHECK(table.sum_of_squares(x.data(), size) == scalar);
      }
    }
    CHECK(reference.sum_of_squares(nullptr, 0) == 0);
  }

  TEST_CASE("dropout: every table drops where the pair's bits say so, even NaN") {
    for_each_case([](const KernelTable& table, Float type, std::int64_t size) {
      std::vector<float> values = normal_floats(size, 1);
      for (std::size_t i = 0; i < values.size(); i += 3) values[i] = kNan;
      Row x(type, values), y(type, size);
      const DropoutArgs args{x.data(), type,        size,     0x0123456789abcdefu,
                             77,       0x60000000u, 1.59375f, y.data()};
      table.dropout(args);
      for (std::int64_t i = 0; i < size; ++i) {
        const std::uint64_t bits =
            keyed_bits(args.key, args.first_pair + static_cast<std::uint64_t>(i / 2));
        const auto word = static_cast<std::uint32_t>(i % 2 == 0 ? bits : bits >> 32);
        if (word < args.threshold) {
          CHECK(y[i] == 0);
        } else if (std::isnan(x[i])) {
          CHECK(std::isnan(y[i]));
        } else {
          CHECK(y[i] == round_to(type, x[i] * args.keep_scale));
        }
      }
    });
  }
}

}  // namespace
}  // namespace lorapp::kernels
