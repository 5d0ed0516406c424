// What is not finite reaches what depends on it, whatever its bits: NaN of every payload through
// the row kernels, whose bf16 roundings do not look for it, and scales of weights through the
// products.
#include "kernels/dispatch.hpp"
#include "kernels/product_args.hpp"
#include "kernels/product_problem.hpp"
#include "kernels/rows_args.hpp"

#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace lorapp::kernels {
namespace {

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};
using Halves = std::vector<std::uint16_t>;

template <class F>
void for_each_table(F f) {
  for (const KernelTable& table : compiled_tables()) {
    if (!can_run(table)) continue;
    INFO(std::string(table.name));
    f(table);
  }
}

// The bits of infinity and of 1 in a type of 16 bits.
std::uint16_t infinity_of(Float type) { return type == Float::bf16 ? 0x7f80 : 0x7c00; }
std::uint16_t one_of(Float type) { return type == Float::bf16 ? 0x3f80 : 0x3c00; }

// Every NaN of a type of 16 bits: of both signs, quiet and signalling.
Halves all_nans(Float type) {
  Halves nans;
  for (std::uint32_t bits = infinity_of(type) + 1u; bits < 0x8000u; ++bits) {
    nans.push_back(static_cast<std::uint16_t>(bits));
    nans.push_back(static_cast<std::uint16_t>(bits | 0x8000u));
  }
  return nans;
}

// How many are not NaN.
std::size_t others_among(const Halves& values, Float type) {
  std::size_t count = 0;
  for (const std::uint16_t bits : values) count += (bits & 0x7fffu) <= infinity_of(type) ? 1 : 0;
  return count;
}

// W [17, 64] in spans of 32 columns, all scales 1 but that of row 3 in the first span.
struct Weight {
  static constexpr std::int64_t kRows = 17, kColumns = 64, kSpan = 32;
  static constexpr std::int64_t kBadRow = 3;
  Codebook4 book = nf4_codebook();
  std::vector<std::uint8_t> lines =
      std::vector<std::uint8_t>(static_cast<std::size_t>(line_bytes(kRows, kColumns)));
  std::vector<float> absmax =
      std::vector<float>(static_cast<std::size_t>(scale_count(kRows, kColumns, kSpan)), 1.0f);
  PackedWeight packed{};

  Weight(float scale, Float via) {
    for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = static_cast<std::uint8_t>(i * 37);
    absmax[kBadRow] = scale;
    packed = {.lines = lines.data(),
              .absmax = absmax.data(),
              .nested = nullptr,
              .rows = kRows,
              .columns = kColumns,
              .span = kSpan,
              .value = book.value,
              .via = via,
              .map = nullptr,
              .nested_absmax = nullptr,
              .offset = 0,
              .blocksize = kSpan,
              .nested_blocksize = 1};
  }
};

// y of x · Wᵀ, or of x · W, x all ones.
std::vector<float> product_of(
    const KernelTable& table, const Weight& w, std::int64_t rows, bool transposed, Float round) {
  const std::int64_t depth = transposed ? Weight::kRows : Weight::kColumns;
  const std::int64_t padded = transposed ? panels_of(depth) * kPanelRows : depth;
  const std::int64_t columns = transposed ? Weight::kColumns : Weight::kRows;
  const ProductShape shape = table.product_shape(round);
  const std::vector<float> x(static_cast<std::size_t>(rows * depth), 1.0f);
  const auto a = product_problem::packed_rows(table, x, rows, padded, round);
  const auto block = product_problem::aligned<std::uint32_t>(kDepthWords * shape.tile_columns);
  const auto sums = product_problem::aligned<float>(sum_rows(shape, rows) * shape.tile_columns);
  std::vector<float> y(static_cast<std::size_t>(rows * columns));
  table.product({.a = a.get(),
                 .rows = rows,
                 .w = &w.packed,
                 .dense = nullptr,
                 .transposed = transposed,
                 .a2 = nullptr,
                 .b2 = nullptr,
                 .rank = 0,
                 .b2_row_stride = 0,
                 .b2_column_stride = 0,
                 .begin = 0,
                 .end = columns,
                 .round = round,
                 .bias = nullptr,
                 .y = y.data(),
                 .y_type = Float::f32,
                 .y_stride = columns,
                 .block = block.get(),
                 .sums = sums.get(),
                 .sum_columns = shape.tile_columns});
  return y;
}

TEST_SUITE("not finite") {
  TEST_CASE("every NaN of 16 bits stays a NaN in every row kernel of every table") {
    for_each_table([](const KernelTable& table) {
      for (const Float type : {Float::bf16, Float::f16}) {
        INFO("type ", static_cast<int>(type));
        Halves nan = all_nans(type);
        const auto n = static_cast<std::int64_t>(nan.size());
        Halves one(nan.size(), one_of(type)), a(nan.size()), b(nan.size());
        const auto check = [&](const char* what, bool both = false) {
          INFO(what);
          CHECK(others_among(a, type) == 0);
          if (both) CHECK(others_among(b, type) == 0);
          a = b = one;
        };
        table.dropout({nan.data(), type, n, 1, 0, /*threshold=*/0, 1.25f, a.data()});
        check("dropout");
        table.swiglu({nan.data(), one.data(), type, n, a.data()});
        check("swiglu of gate");
        table.swiglu({one.data(), nan.data(), type, n, a.data()});
        check("swiglu of up");
        table.swiglu_backward({one.data(), one.data(), nan.data(), type, n, a.data(), b.data()});
        check("swiglu_backward of dy", true);
        table.swiglu_backward({nan.data(), one.data(), one.data(), type, n, a.data(), b.data()});
        check("swiglu_backward of gate", true);
        // Rows of one element.
        std::vector<float> scale(nan.size());
        table.rms_norm({nan.data(), type, n, 1, one.data(), 1e-5f, a.data(), scale.data()});
        check("rms_norm of x");
        table.rms_norm_backward(
            {nan.data(), type, n, 1, one.data(), scale.data(), one.data(), a.data(), nullptr});
        check("rms_norm_backward of x");
        std::fill(scale.begin(), scale.end(), 1.0f);
        table.rms_norm_backward(
            {one.data(), type, n, 1, one.data(), scale.data(), nan.data(), a.data(), nullptr});
        check("rms_norm_backward of dy");
        table.rms_norm({one.data(), type, 1, n, nan.data(), 1e-5f, a.data(), nullptr});
        check("rms_norm of weight");
        // One head: the first half of its dimensions is NaN, and reaches both.
        Halves head = nan, turned(2 * nan.size());
        head.insert(head.end(), one.begin(), one.end());
        for (const bool back : {false, true}) {
          table.rotate({head.data(), type, 1, 1, 2 * n, 2 * n, 2 * n, one.data(), one.data(), back,
                        turned.data()});
          CHECK(others_among(turned, type) == 0);
        }
      }
    });
  }

  TEST_CASE("a scale that is not finite reaches what its weights do, and nothing else") {
    const float infinity = std::numeric_limits<float>::infinity();
    for_each_table([&](const KernelTable& table) {
      for (const float scale : {infinity, -infinity, std::nanf(""), -std::nanf("")}) {
        for (const Float via : kTypes) {
          const Weight w(scale, via);
          for (const Float round : kTypes) {
            INFO(scale, " via ", static_cast<int>(via), " round ", static_cast<int>(round));
            constexpr std::int64_t kRowsOfX = 5;
            const auto forward = product_of(table, w, kRowsOfX, false, round);
            const auto transposed = product_of(table, w, kRowsOfX, true, round);
            for (std::int64_t m = 0; m < kRowsOfX; ++m) {
              for (std::int64_t n = 0; n < Weight::kRows; ++n) {
                const float y = forward[static_cast<std::size_t>(m * Weight::kRows + n)];
                CHECK(std::isfinite(y) == (n != Weight::kBadRow));
              }
              for (std::int64_t k = 0; k < Weight::kColumns; ++k) {
                const float y = transposed[static_cast<std::size_t>(m * Weight::kColumns + k)];
                CHECK(std::isfinite(y) == (k >= Weight::kSpan));
              }
            }
          }
          const std::vector<float> x(Weight::kColumns, 1.0f);
          std::vector<float> y(Weight::kRows);
          table.vector_product({x.data(), 1, &w.packed, nullptr, 0, Weight::kRows, nullptr,
                                y.data(), Weight::kRows});
          for (std::int64_t n = 0; n < Weight::kRows; ++n) {
            CHECK(std::isfinite(y[static_cast<std::size_t>(n)]) == (n != Weight::kBadRow));
          }
        }
      }
    });
  }
}

}  // namespace
}  // namespace lorapp::kernels
