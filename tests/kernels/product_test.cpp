// Products with packed weights: every table against sums in double, on ragged shapes, with all
// roundings; the packed layout itself.
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"
#include "kernels/product_args.hpp"

#include <lorapp/quant/double_quant.hpp>
#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace lorapp::kernels {
#if defined(LORAPP_TEST_HAS_TILES)
const KernelTable& table_amx_emulated();
#endif

namespace {

// The tables that can run here, and that of AMX with tile registers in plain C++.
std::vector<const KernelTable*> tables_under_test() {
  std::vector<const KernelTable*> tables;
  for (const KernelTable& table : compiled_tables()) {
    if (can_run(table)) tables.push_back(&table);
  }
#if defined(LORAPP_TEST_HAS_TILES)
  if (can_run(table_amx_emulated())) tables.push_back(&table_amx_emulated());
#endif
  return tables;
}

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};

struct Shape {
  std::int64_t rows, columns, span;
};
// One panel; parts of panels; more than one block of the summed dimension both ways.
constexpr Shape kShapes[] = {
    {16, 32, 32}, {1, 64, 64}, {33, 96, 32}, {50, 640, 64}, {200, 448, 32}};

// A weight with its dense values, rounded as dequantizing rounds.
struct Weight {
  std::vector<std::uint8_t> lines, nested;
  std::vector<float> absmax, nested_absmax, dense;
  Codebook4 book = nf4_codebook();
  DynamicMap map = dynamic_map();
  PackedWeight packed{};

  Weight(Shape shape, Float via, bool is_nested, unsigned seed) {
    const auto [rows, columns, span] = shape;
    std::mt19937 random(seed);
    const std::int64_t blocks = rows * columns / span;
    const std::int64_t nested_blocksize =
        rows == 50 ? 48 : 32;  // powers of two are a path of their own
    std::vector<std::uint8_t> scale_codes(static_cast<std::size_t>(blocks));
    for (auto& code : scale_codes) code = static_cast<std::uint8_t>(random());
    for (std::int64_t i = 0; i * nested_blocksize < blocks; ++i) {
      nested_absmax.push_back(0.01f + 0.001f * static_cast<float>(random() % 10));
    }
    const float offset = 0.03f;
    const auto count = static_cast<std::size_t>(scale_count(rows, columns, span));
    absmax.assign(count, 0.0f);
    nested.assign(count, 0);
    lines.assign(static_cast<std::size_t>(line_bytes(rows, columns)), 0);
    dense.resize(static_cast<std::size_t>(rows * columns));
    auto* words = reinterpret_cast<std::uint32_t*>(lines.data());
    for (std::int64_t n = 0; n < rows; ++n) {
      for (std::int64_t k = 0; k < columns; ++k) {
        const std::int64_t block = (n * columns + k) / span;
        const std::int64_t at = (n / 16 * (columns / span) + k / span) * 16 + n % 16;
        const float scale =
            decode8(map.value, scale_codes[static_cast<std::size_t>(block)],
                    nested_absmax[static_cast<std::size_t>(block / nested_blocksize)], offset);
        absmax[static_cast<std::size_t>(at)] = scale;
        nested[static_cast<std::size_t>(at)] = scale_codes[static_cast<std::size_t>(block)];
        const auto code = static_cast<std::uint8_t>(random() & 15);
        words[(n / 16 * (columns / 8) + k / 8) * 16 + n % 16] |= std::uint32_t{code}
                                                                 << code_shift(k);
        dense[static_cast<std::size_t>(n * columns + k)] = round_to(via, book.value[code] * scale);
      }
    }
    packed = {.lines = lines.data(),
              .absmax = is_nested ? nullptr : absmax.data(),
              .nested = is_nested ? nested.data() : nullptr,
              .rows = rows,
              .columns = columns,
              .span = span,
              .value = book.value,
              .via = via,
              .map = map.value,
              .nested_absmax = nested_absmax.data(),
              .offset = offset,
              .blocksize = span,
              .nested_blocksize = nested_blocksize};
  }
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
std::unique_ptr<T[], Free> aligned(std::int64_t count) {
  const auto bytes = (static_cast<std::size_t>(count) * sizeof(T) + 127) / 64 * 64;
  return std::unique_ptr<T[], Free>(static_cast<T*>(std::aligned_alloc(64, bytes)));
}

std::vector<float> normal(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

std::unique_ptr<std::uint32_t[], Free> packed_rows(const KernelTable& table,
                                                   const std::vector<float>& x,
                                                   std::int64_t rows,
                                                   std::int64_t padded_depth,
                                                   Float round) {
  const ProductShape shape = table.product_shape(round);
  const RowTiles tiles = row_tiles(rows, shape.tile_rows);
  const auto depth = static_cast<std::int64_t>(x.size()) / rows;
  auto out = aligned<std::uint32_t>(depth_blocks(shape, padded_depth) * tiles.tiles * tiles.height *
                                    kDepthWords);
  for (std::int64_t tile = 0; tile < tiles.tiles; ++tile) {
    table.pack_rows(
        {x.data(), Float::f32, depth, rows, depth, padded_depth, round, tile, tile + 1, out.get()});
  }
  return out;
}

// A weight as product() takes it, and the values it stands for.
struct Source {
  const PackedWeight* packed;
  const DenseMatrix* matrix;
  std::int64_t rows, columns;
  const std::vector<float>& values;
};

// The largest error of y against A · op(W) + A₂ · B₂ + bias, in units of what rounding may do.
double worst_error(
    const KernelTable& table, const Source& w, std::int64_t rows, bool transposed, Float round) {
  const std::int64_t depth = transposed ? w.rows : w.columns;
  const std::int64_t columns = transposed ? w.columns : w.rows;
  const std::int64_t padded =
      transposed && w.packed != nullptr ? panels_of(w.rows) * kPanelRows : depth;
  constexpr std::int64_t kRank = 5;
  const std::vector<float> x = normal(rows * depth, 2), bias = normal(columns, 3);
  const std::vector<float> low = normal(rows * kRank, 4), b2 = normal(kRank * columns, 5);
  const ProductShape shape = table.product_shape(round);
  const auto a = packed_rows(table, x, rows, padded, round);
  const auto a2 = packed_rows(table, low, rows, kRank, Float::f32);
  const std::int64_t sum_columns = 2 * shape.tile_columns;
  const auto block = aligned<std::uint32_t>(kDepthWords * shape.tile_columns);
  const auto sums = aligned<float>(sum_rows(shape, rows) * sum_columns);
  std::vector<float> y(static_cast<std::size_t>(rows * columns), std::nanf(""));
  // Two ranges of columns, as two threads would take.
  const std::int64_t middle = columns / shape.tile_columns / 2 * shape.tile_columns;
  for (const auto& [begin, end] :
       {std::pair{std::int64_t{0}, middle}, std::pair{middle, columns}}) {
    table.product({a.get(),  rows,       w.packed, w.matrix,    transposed, a2.get(),   b2.data(),
                   kRank,    columns,    1,        begin,       end,        round,      bias.data(),
                   y.data(), Float::f32, columns,  block.get(), sums.get(), sum_columns});
  }
  const double half_ulp = round == Float::f32 ? 0 : round == Float::bf16 ? 0x1p-8 : 0x1p-11;
  double worst = 0;
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t c = 0; c < columns; ++c) {
      double sum = bias[static_cast<std::size_t>(c)], size = std::abs(sum);
      const auto add = [&](double product) {
        sum += product;
        size += std::abs(product);
      };
      for (std::int64_t d = 0; d < depth; ++d) {
        const std::int64_t at = transposed ? d * w.columns + c : c * w.columns + d;
        add(static_cast<double>(round_to(round, w.values[static_cast<std::size_t>(at)])) *
            round_to(round, x[static_cast<std::size_t>(m * depth + d)]));
      }
      for (std::int64_t r = 0; r < kRank; ++r) {
        add(static_cast<double>(low[static_cast<std::size_t>(m * kRank + r)]) *
            b2[static_cast<std::size_t>(r * columns + c)]);
      }
      const double got = y[static_cast<std::size_t>(m * columns + c)];
      const double allowed = 1e-6 * size + half_ulp * std::abs(sum);
      const double error = std::abs(got - sum) / allowed;
      worst = error < worst ? worst : error;  // NaN stays
    }
  }
  return worst;
}

// The same of vector_product, in two ranges of rows of W.
double worst_vector_error(const KernelTable& table, const Source& w, std::int64_t rows) {
  const std::vector<float> x = normal(rows * w.columns, 2), bias = normal(w.rows, 3);
  std::vector<float> y(static_cast<std::size_t>(rows * w.rows), std::nanf(""));
  const std::int64_t middle = panels_of(w.rows) / 2 * kPanelRows;
  for (const auto& [begin, end] : {std::pair{std::int64_t{0}, middle}, std::pair{middle, w.rows}}) {
    table.vector_product(
        {x.data(), rows, w.packed, w.matrix, begin, end, bias.data(), y.data(), w.rows});
  }
  double worst = 0;
  for (std::int64_t m = 0; m < rows; ++m) {
    for (std::int64_t n = 0; n < w.rows; ++n) {
      double sum = bias[static_cast<std::size_t>(n)], size = std::abs(sum);
      for (std::int64_t k = 0; k < w.columns; ++k) {
        const double product =
            static_cast<double>(w.values[static_cast<std::size_t>(n * w.columns + k)]) *
            x[static_cast<std::size_t>(m * w.columns + k)];
        sum += product;
        size += std::abs(product);
      }
      const double error = std::abs(y[static_cast<std::size_t>(m * w.rows + n)] - sum);
      worst = error / (1e-6 * size) < worst ? worst : error / (1e-6 * size);
    }
  }
  return worst;
}

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
      for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                          {5, 3},
                                          {16, 32},
                                          {33, 47},
                                          {200, 401},
                                          {401, 19}}) {
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
      for (const auto& [rows, columns] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                          {5, 3},
                                          {16, 32},
                                          {3, 64},
                                          {33, 127},
                                          {200, 401},
                                          {401, 19}}) {
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
