// The operands come from a small generator of its own: the same everywhere, and never zero.
#include "quant/self_test.hpp"

#include "kernels/float16.hpp"
#include "kernels/product_args.hpp"
#include "quant/aligned_buffer.hpp"

#include <lorapp/error.hpp>
#include <lorapp/quant/int8.hpp>
#include <lorapp/quant/nf4.hpp>

#include <cmath>
#include <vector>

namespace lorapp::detail {
namespace {

using kernels::Float;

// Three panels, the last with one row; three spans. More depth than rows and the reverse both
// occur, since products are taken both ways.
constexpr std::int64_t kRows = 33, kColumns = 96, kSpan = 32;
constexpr std::int64_t kMostRowsOfX = 13;

// Values between -1 and 1, none of them 0.
struct Numbers {
  std::uint32_t state = 1;
  std::uint32_t bits() {
    state = state * 1664525u + 1013904223u;
    return state >> 8;
  }
  float next() { return (static_cast<float>(bits() % 2000) + 0.5f) / 1000.0f - 1.0f; }
};

struct TestWeight {
  static constexpr Codebook4 kBook = nf4_codebook();
  std::vector<std::uint8_t> lines;
  std::vector<float> absmax;
  std::vector<float> dense = std::vector<float>(kRows * kColumns);

  explicit TestWeight(Float via)
      : lines(static_cast<std::size_t>(kernels::line_bytes(kRows, kColumns))),
        absmax(static_cast<std::size_t>(kernels::scale_count(kRows, kColumns, kSpan))) {
    Numbers numbers;
    auto* words = reinterpret_cast<std::uint32_t*>(lines.data());
    for (std::int64_t n = 0; n < kRows; ++n) {
      for (std::int64_t k = 0; k < kColumns; ++k) {
        const std::int64_t panel = n / 16, lane = n % 16;
        float& scale =
            absmax[static_cast<std::size_t>((panel * (kColumns / kSpan) + k / kSpan) * 16 + lane)];
        if (k % kSpan == 0) scale = 1.5f + numbers.next();
        const std::uint32_t code = numbers.bits() & 15u;
        words[(panel * (kColumns / 8) + k / 8) * 16 + lane] |= code << kernels::code_shift(k);
        dense[static_cast<std::size_t>(n * kColumns + k)] =
            kernels::round_to(via, kBook.value[code] * scale);
      }
    }
  }
};

struct TestCodes {
  std::vector<std::int8_t> codes = std::vector<std::int8_t>(kRows * kColumns);
  std::vector<float> absmax = std::vector<float>(kRows);
  std::vector<float> dense = std::vector<float>(kRows * kColumns);

  TestCodes() {
    Numbers numbers{5};
    for (std::size_t n = 0; n < absmax.size(); ++n) {
      absmax[n] = 1.5f + numbers.next();
      for (std::size_t k = n * kColumns; k < (n + 1) * kColumns; ++k) {
        codes[k] = static_cast<std::int8_t>(static_cast<int>(numbers.bits() % 255) - 127);
        dense[k] = static_cast<float>(codes[k]) * int8_step(absmax[n]);
      }
    }
  }
};

// A weight as products take it, and the values it stands for.
struct Source {
  const kernels::PackedWeight* packed;
  const kernels::DenseMatrix* matrix;
  const std::vector<float>& dense;
};

void expect_near(const kernels::KernelTable& table,
                 const char* what,
                 std::int64_t rows,
                 double got,
                 double expected,
                 double allowed) {
  LORAPP_CHECK(std::abs(got - expected) <= allowed, "kernels", "the ", table.name,
               " kernels compute a wrong product on this CPU (", what, ", ", rows, " rows): ", got,
               ", expected ", expected, kAnotherIsa);
}

void check_product(const kernels::KernelTable& table,
                   const Source& weight,
                   bool transposed,
                   Float round,
                   std::int64_t rows) {
  const std::int64_t depth = transposed ? kRows : kColumns;
  const std::int64_t columns = transposed ? kColumns : kRows;
  const std::int64_t padded = transposed && weight.packed != nullptr
                                  ? kernels::panels_of(kRows) * kernels::kPanelRows
                                  : depth;
  Numbers numbers{7};
  std::vector<float> x(static_cast<std::size_t>(rows * depth));
  for (float& value : x) value = numbers.next();
  const kernels::ProductShape shape = table.product_shape(round);
  const auto tiles = kernels::row_tiles(rows, shape.tile_rows);
  const std::int64_t tile_words = tiles.tiles * tiles.height * kernels::kDepthWords;
  const AlignedBuffer a(kernels::depth_blocks(shape, padded) * tile_words * 4);
  const AlignedBuffer block(kernels::kDepthWords * shape.tile_columns * 4);
  const AlignedBuffer sums(kernels::sum_rows(shape, rows) * shape.tile_columns * 4);
  std::vector<float> y(static_cast<std::size_t>(rows * columns), std::nanf(""));
  table.pack_rows({x.data(), Float::f32, depth, rows, depth, padded, round, 0, tiles.tiles,
                   a.as<std::uint32_t>()});
  table.product({.a = a.as<std::uint32_t>(),
                 .rows = rows,
                 .w = weight.packed,
                 .dense = weight.matrix,
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
                 .block = block.as<std::uint32_t>(),
                 .sums = sums.as<float>(),
                 .sum_columns = shape.tile_columns});
  const double half_ulp = round == Float::f32 ? 0 : round == Float::bf16 ? 0x1p-8 : 0x1p-11;
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t c = 0; c < columns; ++c) {
      double sum = 0, size = 0;
      for (std::int64_t d = 0; d < depth; ++d) {
        const std::int64_t at = transposed ? d * kColumns + c : c * kColumns + d;
        const double product = static_cast<double>(kernels::round_to(
                                   round, weight.dense[static_cast<std::size_t>(at)])) *
                               kernels::round_to(round, x[static_cast<std::size_t>(m * depth + d)]);
        sum += product;
        size += std::abs(product);
      }
      expect_near(table, transposed ? "transposed" : "forward", rows,
                  y[static_cast<std::size_t>(m * columns + c)], sum,
                  1e-6 * size + half_ulp * std::abs(sum));
    }
  }
}

// In integers, x and the codes' values are rounded to 14 bits of their largest.
void check_vector_product(const kernels::KernelTable& table,
                          const Source& weight,
                          std::int64_t rows,
                          bool in_integers = false) {
  Numbers numbers{9};
  std::vector<float> x(static_cast<std::size_t>(rows * kColumns));
  for (float& value : x) {
    value = numbers.next();
    if (in_integers) value = kernels::round_to(Float::bf16, value);
  }
  std::vector<float> y(static_cast<std::size_t>(rows * kRows), std::nanf(""));
  std::vector<std::int8_t> parts(x.size() * 2);
  std::vector<kernels::FixedSpan> spans(x.size() / kSpan);
  const kernels::FixedRows fixed{parts.data(), spans.data()};
  if (in_integers) {
    LORAPP_CHECK(table.fix_rows({x.data(), rows, kColumns, kSpan, parts.data(), spans.data()}),
                 "kernels", "the ", table.name,
                 " kernels find no integers for numbers between -1 and 1 on this CPU", kAnotherIsa);
  }
  table.vector_product({x.data(), rows, weight.packed, weight.matrix, 0, kRows, nullptr, y.data(),
                        kRows, in_integers ? &fixed : nullptr});
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t n = 0; n < kRows; ++n) {
      double sum = 0, size = 0, squares = 0;
      for (std::int64_t k = 0; k < kColumns; ++k) {
        const double w = weight.dense[static_cast<std::size_t>(n * kColumns + k)];
        const double product = w * x[static_cast<std::size_t>(m * kColumns + k)];
        sum += product;
        size += std::abs(product);
        squares += w * w;
      }
      expect_near(table, in_integers ? "vector, integers" : "vector", rows,
                  y[static_cast<std::size_t>(m * kRows + n)], sum,
                  in_integers ? 1e-3 * std::sqrt(squares) : 1e-6 * size);
    }
  }
}

void check_source(const kernels::KernelTable& table, const Source& weight, bool vectors) {
  for (const Float round : {Float::f32, Float::bf16, Float::f16}) {
    for (const bool transposed : {false, true}) {
      check_product(table, weight, transposed, round, kMostRowsOfX);
    }
  }
  if (!vectors) return;
  for (const std::int64_t rows : {1, 2, 3}) check_vector_product(table, weight, rows);
}

}  // namespace

void check_products(const kernels::KernelTable& table) {
  for (const Float via : {Float::f32, Float::bf16, Float::f16}) {
    const TestWeight weight(via);
    const kernels::PackedWeight w{.lines = weight.lines.data(),
                                  .absmax = weight.absmax.data(),
                                  .nested = nullptr,
                                  .rows = kRows,
                                  .columns = kColumns,
                                  .span = kSpan,
                                  .value = TestWeight::kBook.value,
                                  .via = via,
                                  .map = nullptr,
                                  .nested_absmax = nullptr,
                                  .offset = 0,
                                  .blocksize = kSpan,
                                  .nested_blocksize = 1};
    const Source source{&w, nullptr, weight.dense};
    check_source(table, source, /*vectors=*/via == Float::f32);
    if (via != Float::f32 || table.fix_rows == nullptr) continue;
    for (const std::int64_t rows : {1, 4}) {
      check_vector_product(table, source, rows, /*in_integers=*/true);
    }
  }
  const TestCodes weight;
  const kernels::DenseMatrix codes{.data = weight.codes.data(),
                                   .type = Float::f32,
                                   .rows = kRows,
                                   .columns = kColumns,
                                   .stride = kColumns,
                                   .absmax = weight.absmax.data()};
  check_source(table, {nullptr, &codes, weight.dense}, /*vectors=*/true);
}

}  // namespace lorapp::detail
