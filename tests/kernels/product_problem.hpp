// Products with a packed or a dense weight: their operands, and how far a table is from sums in
// double.
#pragma once

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

namespace product_problem {

// The tables that can run here, and that of AMX with tile registers in plain C++.
inline std::vector<const KernelTable*> tables_under_test() {
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

inline std::vector<float> normal(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> distribution;
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = distribution(random);
  return values;
}

inline std::unique_ptr<std::uint32_t[], Free> packed_rows(const KernelTable& table,
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
inline double worst_error(
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
inline double worst_vector_error(const KernelTable& table, const Source& w, std::int64_t rows) {
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

}  // namespace product_problem
}  // namespace lorapp::kernels
