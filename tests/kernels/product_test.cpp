// Products with packed weights: every table against sums in double, on ragged shapes, with all
// roundings; the packed layout itself.
#include "kernels/product_problem.hpp"

#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"
#include "kernels/product_args.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace lorapp::kernels {
namespace {

using namespace product_problem;

TEST_SUITE("product") {
  TEST_CASE("packed: a word of a line holds four bytes of the file, and gives them back") {
    std::mt19937 random(1);
    for (int i = 0; i < 1000; ++i) {
      const auto bytes = static_cast<std::uint32_t>(random());
      const std::uint32_t word = packed_word(bytes);
      CHECK(unpacked_word(word) == bytes);
      for (int column = 0; column < 8; ++column) {
        const std::uint32_t byte = bytes >> (column / 2 * 8) & 0xff;
        const std::uint32_t code = column % 2 == 0 ? byte >> 4 : byte & 15;
        CHECK((word >> code_shift(column) & 15) == code);
      }
    }
  }

  TEST_CASE("rows are cut into tiles of equal height that hold them all") {
    for (std::int64_t rows = 1; rows < 100; ++rows) {
      for (const std::int64_t most : {2, 6, 12}) {
        const RowTiles tiles = row_tiles(rows, most);
        CHECK(tiles.height <= most);
        CHECK(tiles.tiles * tiles.height >= rows);
        CHECK(tiles.tiles * tiles.height - rows < tiles.tiles);
      }
    }
  }

  TEST_CASE("every table multiplies as sums in double do, both ways, with every rounding") {
    for (const KernelTable* each : tables_under_test()) {
      const KernelTable& table = *each;
      for (const Shape shape : kShapes) {
        for (const Float via : kTypes) {
          for (const bool nested : {false, true}) {
            const Weight weight(shape, via, nested, 7);
            for (const Float round : kTypes) {
              for (const bool transposed : {false, true}) {
                for (const std::int64_t rows : {1, 7, 12, 37}) {
                  INFO(table.name, " ", shape.rows, "x", shape.columns, " via ",
                       static_cast<int>(via), " round ", static_cast<int>(round), " nested ",
                       nested, " transposed ", transposed, " rows ", rows);
                  const Source source{&weight.packed, nullptr, shape.rows, shape.columns,
                                      weight.dense};
                  REQUIRE(worst_error(table, source, rows, transposed, round) < 1);
                }
              }
            }
          }
        }
      }
    }
  }

  TEST_CASE("every table multiplies with dense matrices, of any type, size and distance of rows") {
    constexpr std::int64_t kGap = 3;
    for (const KernelTable* each : tables_under_test()) {
      const KernelTable& table = *each;
      for (const auto& size : {std::pair<std::int64_t, std::int64_t>{1, 1},
                               {5, 3},
                               {16, 32},
                               {33, 47},
                               {200, 401},
                               {401, 19}}) {
        const std::int64_t rows = size.first, columns = size.second;
        for (const Float type : kTypes) {
          const std::int64_t stride = columns + kGap;
          std::vector<float> values = normal(rows * columns, 11);
          std::vector<std::uint8_t> memory(static_cast<std::size_t>(rows * stride * 4), 0xff);
          for (std::int64_t i = 0; i < rows * columns; ++i) {
            float& value = values[static_cast<std::size_t>(i)];
            value = round_to(type, value);
            const std::int64_t at = i / columns * stride + i % columns;
            const std::uint16_t half = type == Float::f16 ? f32_to_f16(value) : f32_to_bf16(value);
            if (type == Float::f32) {
              std::memcpy(memory.data() + at * 4, &value, 4);
            } else {
              std::memcpy(memory.data() + at * 2, &half, 2);
            }
          }
          const DenseMatrix matrix{memory.data(), type, rows, columns, stride};
          const Source source{nullptr, &matrix, rows, columns, values};
          for (std::int64_t x_rows = 1; x_rows <= kMaxVectorRows; ++x_rows) {
            INFO(table.name, " ", rows, "x", columns, " type ", static_cast<int>(type), " rows ",
                 x_rows);
            REQUIRE(worst_vector_error(table, source, x_rows) < 1);
          }
          for (const Float round : kTypes) {
            for (const bool transposed : {false, true}) {
              for (const std::int64_t x_rows : {1, 13}) {
                INFO(table.name, " ", rows, "x", columns, " type ", static_cast<int>(type),
                     " round ", static_cast<int>(round), " transposed ", transposed, " rows ",
                     x_rows);
                REQUIRE(worst_error(table, source, x_rows, transposed, round) < 1);
              }
            }
          }
        }
      }
    }
  }

  TEST_CASE("every table multiplies with codes in 8 bits, of any size and distance of rows") {
    constexpr std::int64_t kGap = 5;
    for (const KernelTable* each : tables_under_test()) {
      const KernelTable& table = *each;
      for (const auto& size : {std::pair<std::int64_t, std::int64_t>{1, 1},
                               {5, 3},
                               {16, 32},
                               {3, 64},
                               {33, 127},
                               {200, 401},
                               {401, 19}}) {
        const std::int64_t rows = size.first, columns = size.second;
        const std::int64_t stride = columns + kGap;
        std::mt19937 random(13);
        // Between and before the rows lies what no kernel may take for a code, one byte off every
        // boundary.
        std::vector<std::int8_t> memory(static_cast<std::size_t>(rows * stride + 1), -128);
        std::vector<float> absmax(static_cast<std::size_t>(rows));
        std::vector<float> values(static_cast<std::size_t>(rows * columns));
        for (std::int64_t n = 0; n < rows; ++n) {
          float& scale = absmax[static_cast<std::size_t>(n)];
          scale = n % 7 == 3 ? 0.0f : 0.01f * static_cast<float>(random() % 100 + 1);
          for (std::int64_t k = 0; k < columns; ++k) {
            const auto code = static_cast<std::int8_t>(static_cast<int>(random() % 255) - 127);
            memory[static_cast<std::size_t>(1 + n * stride + k)] = code;
            values[static_cast<std::size_t>(n * columns + k)] =
                static_cast<float>(code) * int8_step(scale);
          }
        }
        const DenseMatrix matrix{memory.data() + 1, Float::f32, rows,
                                 columns,           stride,     absmax.data()};
        const Source source{nullptr, &matrix, rows, columns, values};
        for (std::int64_t x_rows = 1; x_rows <= kMaxVectorRows; ++x_rows) {
          INFO(table.name, " ", rows, "x", columns, " rows ", x_rows);
          REQUIRE(worst_vector_error(table, source, x_rows) < 1);
        }
        for (const Float round : kTypes) {
          for (const bool transposed : {false, true}) {
            for (const std::int64_t x_rows : {1, 13}) {
              INFO(table.name, " ", rows, "x", columns, " round ", static_cast<int>(round),
                   " transposed ", transposed, " rows ", x_rows);
              REQUIRE(worst_error(table, source, x_rows, transposed, round) < 1);
            }
          }
        }
      }
    }
  }

  TEST_CASE("every table multiplies up to four rows without packing them") {
    for (const KernelTable* each : tables_under_test()) {
      const KernelTable& table = *each;
      for (const Shape shape : kShapes) {
        for (const bool nested : {false, true}) {
          const Weight weight(shape, Float::f32, nested, 8);
          const Source source{&weight.packed, nullptr, shape.rows, shape.columns, weight.dense};
          for (std::int64_t rows = 1; rows <= kMaxVectorRows; ++rows) {
            INFO(table.name, " ", shape.rows, "x", shape.columns, " rows ", rows);
            REQUIRE(worst_vector_error(table, source, rows) < 1);
          }
        }
      }
    }
  }

  TEST_CASE("a NaN or an infinity in a row of x reaches that row of y and no other") {
    const Weight weight({50, 640, 64}, Float::bf16, false, 9);
    for (const KernelTable* each : tables_under_test()) {
      const KernelTable& table = *each;
      for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        constexpr std::int64_t kRows = 13;
        std::vector<float> x = normal(kRows * 640, 2);
        x[static_cast<std::size_t>(5 * 640 + 333)] = bad;
        const ProductShape shape = table.product_shape(Float::bf16);
        const RowTiles tiles = row_tiles(kRows, shape.tile_rows);
        const auto a = packed_rows(table, x, kRows, 640, Float::bf16);
        const auto block = aligned<std::uint32_t>(kDepthWords * shape.tile_columns);
        const auto sums = aligned<float>(tiles.tiles * tiles.height * shape.tile_columns);
        std::vector<float> y(kRows * 50);
        table.product({a.get(),
                       kRows,
                       &weight.packed,
                       nullptr,
                       false,
                       nullptr,
                       nullptr,
                       0,
                       0,
                       0,
                       0,
                       50,
                       Float::bf16,
                       nullptr,
                       y.data(),
                       Float::f32,
                       50,
                       block.get(),
                       sums.get(),
                       shape.tile_columns});
        for (std::int64_t m = 0; m < kRows; ++m) {
          for (std::int64_t n = 0; n < 50; ++n) {
            INFO(table.name, " row ", m, " column ", n);
            CHECK(std::isfinite(y[static_cast<std::size_t>(m * 50 + n)]) == (m != 5));
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace lorapp::kernels
