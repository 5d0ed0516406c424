// Layers with the same input as one product (q, k and v; gate and up), and the residual in it,
// against matrices in double.
#include "cuda/matrices.hpp"
#include "kernels/dispatch.hpp"
#include "support/normal_floats.hpp"

#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

using namespace lorapp;
using namespace lorapp::kernels;
using namespace lorapp::test;

namespace {

constexpr Codebook4 kBook = nf4_codebook();
constexpr std::int64_t kColumns = 128, kTokens = 24;

// One of the layers, on the host and as matrices.
struct Layer {
  std::int64_t rows, rank;
  float scale;
  std::vector<std::uint8_t> codes;
  std::vector<float> absmax, a, b;
  std::vector<std::uint16_t> input;
  Matrix w, ma, mb, mi;
};

Layer layer(std::int64_t rows, std::int64_t rank, float scale, unsigned seed) {
  Layer made{rows, rank, scale, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  std::mt19937 random(seed);
  made.codes.resize(static_cast<std::size_t>(rows * kColumns / 2));
  for (std::uint8_t& code : made.codes) code = static_cast<std::uint8_t>(random());
  made.absmax = std::vector<float>(static_cast<std::size_t>(rows * kColumns / 64), 0.05f);
  made.a = normal_floats(rank * kColumns, seed + 1, 0.1f);
  made.b = normal_floats(rows * rank, seed + 2, 0.1f);
  made.input = halves(normal_floats(kTokens * kColumns, seed + 3));
  std::vector<std::uint16_t> dense(static_cast<std::size_t>(rows * kColumns));
  find_table("scalar")->dequantize_4bit({made.codes.data(), made.absmax.data(), rows * kColumns, 64,
                                         kBook.value, Float::bf16, Float::bf16, dense.data()});
  made.w = matrix(dense, rows, kColumns, kColumns);
  made.ma = matrix(made.a, rank, kColumns, kColumns);
  made.mb = matrix(made.b, rows, rank, rank);
  made.mi = matrix(made.input, kTokens, kColumns, kColumns);
  return made;
}

// Columns [begin, begin + count).
Matrix columns_of(const Matrix& m, std::int64_t begin, std::int64_t count) {
  Matrix part = zeros(m.rows, count);
  for (std::int64_t r = 0; r < m.rows; ++r) {
    for (std::int64_t c = 0; c < count; ++c) part.at(r, c) = m.at(r, begin + c);
  }
  return part;
}
Matrix rows_of(const Matrix& m, std::int64_t begin, std::int64_t count) {
  return transposed(columns_of(transposed(m), begin, count));
}

std::vector<std::uint16_t> nans(std::int64_t count) {
  return std::vector<std::uint16_t>(static_cast<std::size_t>(count), 0x7fc0);
}

}  // namespace

TEST_SUITE("stacked layers") {
  TEST_CASE(
      "each layer of a stack has the product and the gradients that it has alone, with ranks and "
      "scales of its own, joined or added, with dropout or without, and the residual is added") {
    struct Case {
      std::vector<Layer> layers;
      bool joined, masked, residual;
    };
    const std::vector<Case> cases = {
        {{layer(48, 16, 2, 1), layer(16, 16, 2, 20), layer(16, 16, 2, 40)}, true, false, true},
        {{layer(48, 16, 2, 1), layer(16, 16, 2, 20), layer(16, 16, 2, 40)}, false, false, true},
        {{layer(32, 3, 0.5f, 1), layer(64, 70, 2, 20)}, true, false, false},
        {{layer(32, 3, 0.5f, 1), layer(64, 12, 2, 20)}, false, true, false},
        {{layer(48, 0, 1, 1), layer(16, 5, 2, 20), layer(24, 0, 1, 40)}, true, true, true},
        {{layer(48, 5, 2, 1), layer(16, 0, 1, 20)}, false, false, false},
        {{layer(48, 0, 1, 1), layer(16, 0, 1, 20)}, true, false, true},
    };
    for (const Case& each : cases) {
      CAPTURE(each.layers.size());
      CAPTURE(each.joined);
      CAPTURE(each.masked);
      Mirror mirror;
      std::vector<cuda::LinearWeight> parts;
      for (const Layer& one : each.layers) {
        cuda::LinearWeight part{};
        part.w.codes = all_of(mirror, one.codes);
        part.w.rows = one.rows, part.w.columns = kColumns, part.w.blocksize = 64;
        part.w.nested_blocksize = 1;
        part.w.value = kBook.value;
        part.w.absmax = all_of(mirror, one.absmax);
        part.w.via = Float::bf16;
        if (one.rank > 0) {
          part.a = all_of(mirror, one.a), part.b = all_of(mirror, one.b), part.rank = one.rank;
        }
        part.scale = one.scale;
        parts.push_back(part);
      }
      cuda::LinearStack stack(parts.data(), static_cast<int>(parts.size()), nullptr);
      const std::int64_t rows = stack.rows(), r = stack.padding(), stride = stack.stride();
      const bool ranked = r > 0;
      CHECK(r % 64 == 0);
      std::vector<std::uint8_t> space(1 << 20);
      const cuda::DenseProducts products = products_with(mirror, space);
      const auto x = halves(normal_floats(kTokens * kColumns, 8)),
                 dy = halves(normal_floats(kTokens * rows, 9)),
                 bias = halves(normal_floats(rows, 10)),
                 residual = halves(normal_floats(kTokens * rows, 11));
      auto filled = nans(stack.matrix_size()), x_and_u = nans(kTokens * stride),
           u_apart = nans(kTokens * r), v_apart = nans(kTokens * r),
           dy_and_v = nans(kTokens * (rows + r)), y = nans(kTokens * rows),
           dx = nans(kTokens * kColumns);
      std::vector<std::vector<std::uint16_t>> dinput(parts.size(), nans(kTokens * kColumns));
      std::vector<float> da(static_cast<std::size_t>(r * kColumns), std::nanf("")),
          db(static_cast<std::size_t>(rows * r), std::nanf(""));
      stack.matrix = all_of(mirror, filled);
      std::vector<const std::uint16_t*> inputs;
      std::vector<std::uint16_t*> dinputs;
      for (std::size_t i = 0; i < parts.size(); ++i) {
        inputs.push_back(parts[i].a != nullptr ? all_of(mirror, each.layers[i].input) : nullptr);
        dinputs.push_back(parts[i].a != nullptr ? all_of(mirror, dinput[i]) : nullptr);
      }
      std::uint16_t* joined_x = each.joined && ranked ? all_of(mirror, x_and_u) : nullptr;
      std::uint16_t* apart = each.joined ? nullptr : all_of(mirror, u_apart);
      const std::uint16_t* device_x = all_of(mirror, x);
      int status = cuda::fill_matrix(stack, nullptr);
      REQUIRE(status == 0);
      status = cuda::linear_forward(products, stack,
                                    {.x = device_x,
                                     .tokens = kTokens,
                                     .x_stride = kColumns,
                                     .bias = all_of(mirror, bias),
                                     .inputs = each.masked ? inputs.data() : nullptr,
                                     .added = each.residual ? all_of(mirror, residual) : nullptr,
                                     .added_stride = rows,
                                     .x_and_u = joined_x,
                                     .u = apart,
                                     .y = all_of(mirror, y),
                                     .y_stride = rows},
                                    nullptr);
      REQUIRE(status == 0);
      status = cuda::linear_backward(
          products, stack,
          {.dy = all_of(mirror, dy),
           .tokens = kTokens,
           .dy_stride = rows,
           .dy_and_v = each.joined && ranked ? all_of(mirror, dy_and_v) : nullptr,
           .v = each.joined ? nullptr : all_of(mirror, v_apart),
           .x = device_x,
           .x_stride = kColumns,
           .inputs = each.masked ? inputs.data() : nullptr,
           .u = joined_x != nullptr ? joined_x + kColumns : apart,
           .u_stride = joined_x != nullptr ? stride : r,
           .dx = all_of(mirror, dx),
           .dx_stride = kColumns,
           .dinputs = each.masked ? dinputs.data() : nullptr,
           .da = all_of(mirror, da),
           .db = all_of(mirror, db)},
          nullptr);
      mirror.finish(status);

      const Matrix mx = matrix(x, kTokens, kColumns, kColumns),
                   mdy = matrix(dy, kTokens, rows, rows), my = matrix(y, kTokens, rows, rows);
      Matrix want_dx = zeros(kTokens, kColumns);
      for (std::size_t i = 0; i < parts.size(); ++i) {
        CAPTURE(i);
        const Layer& one = each.layers[i];
        const int part = static_cast<int>(i);
        const std::int64_t row = stack.row(part), rank = stack.rank(part);
        const Matrix& read = each.masked ? one.mi : mx;
        const Matrix own_dy = columns_of(mdy, row, one.rows);
        const double scale = double{one.scale};
        const Matrix u = scale * (read * transposed(one.ma)), v = scale * (own_dy * one.mb);
        Matrix want = mx * transposed(one.w) + u * transposed(one.mb);
        for (std::int64_t t = 0; t < kTokens; ++t) {
          for (std::int64_t n = 0; n < one.rows; ++n) {
            want.at(t, n) += bf16_to_f32(bias[static_cast<std::size_t>(row + n)]);
            if (each.residual) {
              want.at(t, n) += bf16_to_f32(residual[static_cast<std::size_t>(t * rows + row + n)]);
            }
          }
        }
        CHECK(error(columns_of(my, row, one.rows), want) < 1e-2);
        want_dx = want_dx + own_dy * one.w;
        if (one.rank == 0) continue;
        if (each.masked) {
          CHECK(error(matrix(dinput[i], kTokens, kColumns, kColumns), v * one.ma) < 1e-2);
        } else {
          want_dx = want_dx + v * one.ma;
        }
        CHECK(error(rows_of(matrix(da, r, kColumns, kColumns), rank, one.rank),
                    transposed(v) * read) < 1e-2);
        CHECK(error(rows_of(columns_of(matrix(db, rows, r, r), rank, one.rank), row, one.rows),
                    transposed(own_dy) * u) < 1e-2);
      }
      CHECK(error(matrix(dx, kTokens, kColumns, kColumns), want_dx) < 1e-2);
    }
  }

  TEST_CASE("ranks of a stack lie behind each other at 16 bytes and fill up to whole steps") {
    const Layer three = layer(16, 3, 1, 1);
    cuda::LinearWeight part{};
    part.w.rows = 16, part.w.columns = kColumns;
    part.a = part.b = three.a.data();
    part.rank = 3;
    std::vector<cuda::LinearWeight> parts(3, part);
    parts[1].a = nullptr;
    const cuda::LinearStack stack(parts.data(), 3, nullptr);
    CHECK(stack.rank(0) == 0);
    CHECK(stack.rank_end(0) == 8);
    CHECK(stack.rank(2) == 8);
    CHECK(stack.rank_end(2) == 64);
    CHECK(stack.padding() == 64);
    CHECK(stack.row(2) == 32);
    CHECK(stack.rows() == 48);
    CHECK(stack.matrix_size() == (48 + 64) * (kColumns + 64));
    part.matrix = nullptr;
    CHECK(cuda::LinearStack(part).matrix_size() == part.matrix_size());
  }
}
