// The CUDA product of few rows, its tensor cores emulated, against sums in double.
#include "cuda/device_memory.hpp"
#include "cuda/emulation_order.hpp"
#include "kernels/cuda_launch.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/float16.hpp"

#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

using namespace lorapp;
using namespace lorapp::kernels;

namespace {

constexpr Codebook4 kBook = nf4_codebook();

struct Problem {
  std::int64_t tokens, rows, columns, blocksize, rank;
  bool nested, with_bias, with_added = false;
};

struct Operands {
  std::vector<std::uint16_t> x, added;
  std::vector<std::uint8_t> codes, scales;
  std::vector<float> absmax, outer, bias, a, b;
  DynamicMap map = dynamic_map();
};

Operands operands(const Problem& p) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0.0f, 1.0f);
  const auto floats = [&](std::int64_t n, float scale) {
    std::vector<float> v(static_cast<std::size_t>(n));
    for (float& each : v) each = normal(random) * scale;
    return v;
  };
  Operands o;
  for (const float each : floats(p.tokens * p.columns, 1)) o.x.push_back(f32_to_bf16(each));
  for (const float each : floats(p.tokens * p.rows, 3)) o.added.push_back(f32_to_bf16(each));
  const std::int64_t n = p.rows * p.columns, blocks = n / p.blocksize;
  for (std::int64_t i = 0; i < n / 2; ++i) o.codes.push_back(static_cast<std::uint8_t>(random()));
  o.absmax = floats(blocks, 0.02f);
  for (float& each : o.absmax) each = std::abs(each) + 0.01f;
  o.scales.resize(o.absmax.size());
  o.outer.resize((o.absmax.size() + 255) / 256);
  if (p.nested) {
    const KernelTable& scalar = *find_table("scalar");
    scalar.quantize_nested(
        {o.absmax.data(), blocks, 256, &o.map, 0.02f, o.scales.data(), o.outer.data()});
    scalar.expand_nested(
        {o.scales.data(), o.outer.data(), 0, blocks, 256, o.map.value, 0.02f, o.absmax.data()});
  }
  o.bias = floats(p.rows, 1);
  o.a = floats(p.rank * p.columns, 0.1f);
  o.b = floats(p.rows * p.rank, 0.1f);
  return o;
}

// What a product gives, and what it makes on its way.
struct Result {
  explicit Result(const Problem& p)
      : y(static_cast<std::size_t>(p.tokens * p.rows), 0x7fc0),  // NaN where nothing is written
        u(static_cast<std::size_t>(p.tokens * p.rank)) {}
  std::vector<std::uint16_t> y;
  std::vector<float> u;
};

// The operands on the device; what comes before the product is launched.
cuda::SmallProductArgs on_device(test::Mirror& mirror,
                                 const Problem& p,
                                 const Operands& o,
                                 Result& result) {
  const auto all = [&](const auto& v) {
    return mirror.in(v.data(), static_cast<std::int64_t>(v.size()));
  };
  const std::uint16_t* x = all(o.x);
  float* low = p.rank > 0 ? mirror.out(result.u.data(), static_cast<std::int64_t>(result.u.size()))
                          : nullptr;
  if (p.rank > 0) {
    REQUIRE(cuda::low_rank_rows({x, p.tokens, p.columns, all(o.a), p.rank, 2.0f, low}, nullptr) ==
            0);
  }
  return {.x = x,
          .tokens = p.tokens,
          .codes = all(o.codes),
          .rows = p.rows,
          .columns = p.columns,
          .blocksize = p.blocksize,
          .value = kBook.value,
          .absmax = p.nested ? nullptr : all(o.absmax),
          .nested = all(o.scales),
          .nested_absmax = all(o.outer),
          .nested_blocksize = 256,
          .map = mirror.in(o.map.value, 256),
          .offset = 0.02f,
          .bias = p.with_bias ? all(o.bias) : nullptr,
          .u = low,
          .b = p.rank > 0 ? all(o.b) : nullptr,
          .rank = p.rank,
          .added = p.with_added ? all(o.added) : nullptr,
          .y = mirror.out(result.y.data(), static_cast<std::int64_t>(result.y.size()))};
}

// y by the CUDA kernels.
std::vector<std::uint16_t> by_cuda(const Problem& p, const Operands& o) {
  Result result(p);
  test::Mirror mirror;
  mirror.finish(cuda::small_product(on_device(mirror, p, o, result), nullptr));
  return result.y;
}

// The worst |y - Σ| beyond the rounding of y, over Σ of the magnitudes; 1 where y is NaN.
double worst_error(const Problem& p, const Operands& o, const std::vector<std::uint16_t>& y) {
  double worst = 0;
  for (std::int64_t t = 0; t < p.tokens; ++t) {
    const auto value = [&](std::int64_t k) {
      return double{bf16_to_f32(o.x[static_cast<std::size_t>(t * p.columns + k)])};
    };
    std::vector<double> u(static_cast<std::size_t>(p.rank));
    for (std::int64_t r = 0; r < p.rank; ++r) {
      for (std::int64_t k = 0; k < p.columns; ++k) {
        u[static_cast<std::size_t>(r)] +=
            2.0 * value(k) * o.a[static_cast<std::size_t>(r * p.columns + k)];
      }
    }
    for (std::int64_t n = 0; n < p.rows; ++n) {
      double sum = p.with_bias ? o.bias[static_cast<std::size_t>(n)] : 0.0,
             magnitude = std::abs(sum);
      const auto add = [&](double term) { sum += term, magnitude += std::abs(term); };
      if (p.with_added) add(bf16_to_f32(o.added[static_cast<std::size_t>(t * p.rows + n)]));
      for (std::int64_t k = 0; k < p.columns; ++k) {
        const std::int64_t i = n * p.columns + k;
        const std::uint8_t code =
            unpack_nibble(o.codes[static_cast<std::size_t>(i / 2)], i % 2 != 0);
        const double weight = double{round_to(Float::bf16, kBook.value[code])} *
                              o.absmax[static_cast<std::size_t>(i / p.blocksize)];
        add(weight * value(k));
      }
      for (std::int64_t r = 0; r < p.rank; ++r) {
        add(u[static_cast<std::size_t>(r)] * o.b[static_cast<std::size_t>(n * p.rank + r)]);
      }
      const double found = bf16_to_f32(y[static_cast<std::size_t>(t * p.rows + n)]);
      if (std::isnan(found)) return 1;
      worst = std::max(worst, (std::abs(found - sum) - 0x1p-8 * std::abs(sum)) / magnitude);
    }
  }
  return worst;
}

}  // namespace

TEST_SUITE("emulated small products") {
  TEST_CASE(
      "1 to 64 rows are multiplied as sums in double are, with ragged rows, bias, low-rank terms, "
      "nested scales and a residual") {
    for (const std::int64_t tokens : {1, 2, 7, 8, 9, 16, 17, 33, 64}) {
      for (const std::int64_t rows : {1, 16, 23}) {
        for (const std::int64_t columns : {64, 576}) {
          for (const bool nested : {false, true}) {
            const Problem p{tokens, rows,       columns,   64, tokens % 2 == 0 ? 5 : 0,
                            nested, rows != 16, rows == 23};
            CAPTURE(tokens);
            CAPTURE(rows);
            CAPTURE(columns);
            CAPTURE(nested);
            const Operands o = operands(p);
            CHECK(worst_error(p, o, by_cuda(p, o)) < 1e-6);
          }
        }
      }
    }
  }

  TEST_CASE("rows longer than what is read ahead are multiplied to their ends") {
    for (const std::int64_t tokens : {1, 9, 33, 64}) {
      for (const std::int64_t columns : {2048, 2240, 4672}) {
        for (const bool nested : {false, true}) {
          const Problem p{tokens, 17, columns, 64, 0, nested, false};
          CAPTURE(tokens);
          CAPTURE(columns);
          CAPTURE(nested);
          const Operands o = operands(p);
          CHECK(worst_error(p, o, by_cuda(p, o)) < 1e-6);
        }
      }
    }
  }

  TEST_CASE("larger blocks of weights, and any order of the threads, give the same products") {
    test::for_each_order([] {
      for (const std::int64_t blocksize : {64, 128, 512}) {
        const Problem p{3, 40, 1024, blocksize, 16, true, true};
        const Operands o = operands(p);
        CHECK(worst_error(p, o, by_cuda(p, o)) < 1e-6);
      }
    });
  }

  TEST_CASE("several weights in one launch have the bits that each has alone") {
    for (const std::int64_t tokens : {1, 9, 33, 64}) {
      CAPTURE(tokens);
      const Problem problems[] = {{tokens, 40, 576, 64, 5, false, true},
                                  {tokens, 7, 128, 128, 0, true, false},
                                  {tokens, 65, 2240, 64, 16, true, false}};
      std::vector<Operands> o;
      std::vector<Result> results;
      for (const Problem& p : problems) {
        o.push_back(operands(p));
        results.emplace_back(p);
      }
      test::Mirror mirror;
      std::vector<cuda::SmallProductArgs> parts;
      for (std::size_t i = 0; i < o.size(); ++i) {
        parts.push_back(on_device(mirror, problems[i], o[i], results[i]));
      }
      mirror.finish(cuda::small_products(parts.data(), 3, nullptr));
      for (std::size_t i = 0; i < o.size(); ++i) CHECK(results[i].y == by_cuda(problems[i], o[i]));

      CHECK(cuda::small_products(parts.data(), 0, nullptr) != 0);
      CHECK(cuda::small_products(parts.data(), cuda::kMostSmallProducts + 1, nullptr) != 0);
      const float other[16] = {};
      parts[2].value = other;
      CHECK(cuda::small_products(parts.data(), 3, nullptr) != 0);
      parts[2].value = parts[0].value;
      --parts[1].tokens;
      CHECK(cuda::small_products(parts.data(), 3, nullptr) != 0);
    }
  }

  TEST_CASE("what the kernel cannot read is refused, not read") {
    const Problem p{1, 16, 64, 64, 0, false, false};
    const Operands o = operands(p);
    std::vector<std::uint16_t> y(16);
    const auto run = [&](std::int64_t tokens, std::int64_t columns, std::int64_t blocksize,
                         std::int64_t past, std::int64_t rows = 16) {
      cuda::SmallProductArgs args{};
      args.x = o.x.data() + past;
      args.tokens = tokens;
      args.codes = o.codes.data();
      args.rows = rows;
      args.columns = columns;
      args.blocksize = blocksize;
      args.value = kBook.value;
      args.absmax = o.absmax.data();
      args.y = y.data();
      return cuda::small_product(args, nullptr);
    };
    CHECK(run(65, 64, 64, 0) != 0);
    CHECK(run(1, 32, 64, 0) != 0);
    CHECK(run(1, 64, 32, 0) != 0);
    CHECK(run(1, 64, 128, 0) != 0);
    CHECK(run(1, 192, 192, 0) != 0);
    CHECK(run(1, 64, 0, 0) != 0);
    CHECK(run(1, 64, 64, 1) != 0);
    CHECK(run(1, 64, 64, 0, std::int64_t{1} << 31) != 0);
    CHECK(run(1, std::int64_t{1} << 25, 64, 0) != 0);
    CHECK(run(0, 64, 64, 0) == 0);
  }
}
