// Products in integers: how far they are from sums in double, and what x must be like.
#include "product_problem.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace lorapp::kernels {
namespace {

using namespace product_problem;

struct Fixed {
  std::vector<std::int8_t> parts;
  std::vector<FixedSpan> spans;
  bool whole;
  FixedRows rows{};

  Fixed(const KernelTable& table,
        const std::vector<float>& x,
        std::int64_t columns,
        std::int64_t span)
      : parts(x.size() * 2),
        spans(x.size() / static_cast<std::size_t>(span)),
        whole(table.fix_rows({x.data(), static_cast<std::int64_t>(x.size()) / columns, columns,
                              span, parts.data(), spans.data()})) {
    rows = {parts.data(), spans.data()};
  }
};

std::vector<float> bf16_rows(std::int64_t count, unsigned seed) {
  std::vector<float> x = normal(count, seed);
  for (float& value : x) value = round_to(Float::bf16, value);
  return x;
}

// The size of the weights and inputs of one sum, each span's as if all were as large as its
// largest.
double span_size(const Weight& w, const float* x, std::int64_t n) {
  const auto columns = w.packed.columns, span = w.packed.span;
  double squares = 0;
  for (std::int64_t k = 0; k < columns; k += span) {
    double weight = 0, input = 0;
    for (std::int64_t i = k; i < k + span; ++i) {
      weight =
          std::max(weight, std::abs(double{w.dense[static_cast<std::size_t>(n * columns + i)]}));
      input = std::max(input, std::abs(double{x[i]}));
    }
    squares += static_cast<double>(span) * weight * weight * input * input;
  }
  return std::sqrt(squares);
}

template <class F>
void for_each_integer_table(F&& f) {
  int tables = 0;
  for (const KernelTable* table : tables_under_test()) {
    if (table->fix_rows == nullptr) continue;
    INFO(table->name);
    ++tables;
    f(*table);
  }
  if (tables == 0) MESSAGE("skipped: no table that can run here multiplies in integers");
}

}  // namespace

TEST_SUITE("integer_product") {
  TEST_CASE("products in integers are within 2^-12 of the largest product, root mean square") {
    for_each_integer_table([](const KernelTable& table) {
      for (const Shape& shape : kShapes) {
        for (const bool nested : {false, true}) {
          const Weight w(shape, Float::f32, nested, 5);
          for (const std::int64_t rows : {1, 2, 3, 4}) {
            std::vector<float> x = bf16_rows(rows * shape.columns, 6);
            x[static_cast<std::size_t>(shape.columns) / 2] =
                24.0f;  // a span with one large element
            const Fixed fixed(table, x, shape.columns, shape.span);
            REQUIRE(fixed.whole);
            const std::vector<float> bias = normal(shape.rows, 8);
            std::vector<float> y(static_cast<std::size_t>(rows * shape.rows), std::nanf(""));
            const std::int64_t middle = std::min<std::int64_t>(kPanelRows, shape.rows);
            for (const std::int64_t begin : {std::int64_t{0}, middle}) {
              table.vector_product({x.data(), rows, &w.packed, nullptr, begin,
                                    begin == 0 ? middle : shape.rows, bias.data(), y.data(),
                                    shape.rows, &fixed.rows});
            }
            double squares = 0, worst = 0;
            for (std::int64_t m = 0; m < rows; ++m) {
              const float* row = x.data() + m * shape.columns;
              for (std::int64_t n = 0; n < shape.rows; ++n) {
                double sum = bias[static_cast<std::size_t>(n)];
                for (std::int64_t k = 0; k < shape.columns; ++k) {
                  sum += double{w.dense[static_cast<std::size_t>(n * shape.columns + k)]} * row[k];
                }
                const double error =
                    (y[static_cast<std::size_t>(m * shape.rows + n)] - sum) / span_size(w, row, n);
                squares += error * error;
                worst = std::max(worst, std::abs(error));
                REQUIRE(std::isfinite(error));
              }
            }
            CAPTURE(shape.rows);
            CAPTURE(shape.columns);
            CAPTURE(rows);
            CHECK(std::sqrt(squares / static_cast<double>(rows * shape.rows)) < 0x1p-12);
            CHECK(worst < 0x1p-10);
          }
        }
      }
    });
  }

  TEST_CASE("zeros give zeros, and a single element is right to 1e-4") {
    for_each_integer_table([](const KernelTable& table) {
      Weight w({16, 64, 32}, Float::f32, false, 3);
      for (int i = 0; i < 16; ++i) w.book.value[i] = i % 3 == 0 ? 0.0f : i % 3 == 1 ? 1.0f : -1.0f;
      w.packed.value = w.book.value;
      std::vector<float> x(64, 0.0f);
      const auto product = [&] {
        const Fixed fixed(table, x, 64, 32);
        REQUIRE(fixed.whole);
        std::vector<float> y(16);
        table.vector_product(
            {x.data(), 1, &w.packed, nullptr, 0, 16, nullptr, y.data(), 16, &fixed.rows});
        return y;
      };
      for (const float value : product()) CHECK(value == 0.0f);
      const auto* words = reinterpret_cast<const std::uint32_t*>(w.lines.data());
      for (const std::int64_t k : {0, 1, 31, 63}) {
        for (const float size : {1.0f, -0.25f, 1.9921875f, -0x1.fcp20f}) {
          x.assign(64, 0.0f);
          x[static_cast<std::size_t>(k)] = size;
          const std::vector<float> y = product();
          for (std::size_t n = 0; n < 16; ++n) {
            const std::uint32_t code =
                words[static_cast<std::size_t>(k / 8) * 16 + n] >> code_shift(k) & 15u;
            const float expected =
                w.book.value[code] * w.absmax[static_cast<std::size_t>(k / 32) * 16 + n] * size;
            CHECK(std::abs(y[n] - expected) <= 1e-4f * std::abs(expected));
          }
        }
      }
    });
  }

  TEST_CASE("x that is not finite, or too large or small, has no integers") {
    for_each_integer_table([](const KernelTable& table) {
      const float infinity = std::numeric_limits<float>::infinity();
      for (const float bad : {infinity, -infinity, std::nanf(""), 1e30f, -1e-30f, 1e-42f}) {
        std::vector<float> x(128, 0.0f);
        CHECK(Fixed(table, x, 128, 32).whole);
        x[70] = bad;
        CAPTURE(bad);
        CHECK_FALSE(Fixed(table, x, 128, 32).whole);
      }
    });
  }
}

}  // namespace lorapp::kernels
