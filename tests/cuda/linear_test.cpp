// Products of many tokens through cuBLASLt, emulated or on a GPU, against sums in double: dense
// ones, and a 4-bit weight with its low-rank term, forward and backward.
#include "cuda/matrices.hpp"
#include "kernels/dispatch.hpp"
#include "support/normal_floats.hpp"

#include <lorapp/quant/nf4.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::kernels;
using namespace lorapp::test;

namespace {

constexpr Codebook4 kBook = nf4_codebook();
constexpr std::size_t kSpaceBytes = 1 << 20;

}  // namespace

TEST_SUITE("products by cuBLASLt") {
  TEST_CASE(
      "dense products in each order of their operands, with distances, beta and bias, are sums in "
      "double") {
    std::vector<std::uint8_t> space(kSpaceBytes);
    test::Mirror memory;
    const cuda::DenseProducts products = products_with(memory, space);
    const std::int64_t m = 24, k = 40, n = 16, gap = 8;
    for (const bool tx : {false, true}) {
      for (const bool tw : {false, true}) {
        for (const Float y_type : {Float::bf16, Float::f32}) {
          for (const bool with_bias : {false, true}) {
            if (with_bias && y_type == Float::f32) continue;
            CAPTURE(tx);
            CAPTURE(tw);
            const std::int64_t xs = (tx ? m : k) + gap, ws = (tw ? k : n) + gap, ys = n + gap;
            const auto x = halves(normal_floats((tx ? k : m) * xs, 1)),
                       w = halves(normal_floats((tw ? n : k) * ws, 2));
            const auto bias = halves(normal_floats(n, 3));
            std::vector<float> wide(static_cast<std::size_t>(m * ys), 2.0f);
            auto narrow = halves(wide);
            const float beta = with_bias ? 0.0f : 0.5f;
            test::Mirror mirror;
            void* y = y_type == Float::f32 ? static_cast<void*>(all_of(mirror, wide))
                                           : all_of(mirror, narrow);
            mirror.finish(cuda::multiply(products,
                                         {.x = all_of(mirror, x),
                                          .x_stride = xs,
                                          .x_transposed = tx,
                                          .w = all_of(mirror, w),
                                          .w_stride = ws,
                                          .w_transposed = tw,
                                          .rows = m,
                                          .depth = k,
                                          .columns = n,
                                          .type = Float::bf16,
                                          .alpha = 1.5f,
                                          .beta = beta,
                                          .bias = with_bias ? all_of(mirror, bias) : nullptr,
                                          .y = y,
                                          .y_stride = ys,
                                          .y_type = y_type},
                                         nullptr));
            const Matrix left = tx ? transposed(matrix(x, k, m, xs)) : matrix(x, m, k, xs);
            const Matrix right = tw ? transposed(matrix(w, n, k, ws)) : matrix(w, k, n, ws);
            Matrix expected = 1.5 * (left * right);
            for (std::int64_t r = 0; r < m; ++r) {
              for (std::int64_t c = 0; c < n; ++c) {
                expected.at(r, c) +=
                    with_bias ? bf16_to_f32(bias[static_cast<std::size_t>(c)]) : beta * 2.0;
              }
            }
            const Matrix found =
                y_type == Float::f32 ? matrix(wide, m, n, ys) : matrix(narrow, m, n, ys);
            CHECK(error(found, expected) < (y_type == Float::f32 ? 1e-6 : 4e-3));
            CHECK(wide[static_cast<std::size_t>(n)] == 2.0f);  // the gap
            CHECK(narrow[static_cast<std::size_t>(n)] == f32_to_bf16(2.0f));
          }
        }
      }
    }
  }

  TEST_CASE("an algorithm is chosen once for a shape") {
    std::vector<std::uint8_t> space(kSpaceBytes);
    const auto x = halves(normal_floats(64 * 64, 1));
    std::vector<std::uint16_t> y(64 * 64);
    test::Mirror mirror;
    const cuda::DenseProducts products = products_with(mirror, space);
    cuda::DenseProductArgs args{.x = all_of(mirror, x),
                                .x_stride = 64,
                                .w = all_of(mirror, x),
                                .w_stride = 64,
                                .rows = 64,
                                .depth = 64,
                                .columns = 64,
                                .type = Float::bf16,
                                .y = all_of(mirror, y),
                                .y_stride = 64,
                                .y_type = Float::bf16};
    for (int i = 0; i < 3; ++i) REQUIRE(cuda::multiply(products, args, nullptr) == 0);
    CHECK(products.algorithms->shapes() == 1);
    args.rows = 32;
    REQUIRE(cuda::multiply(products, args, nullptr) == 0);
    CHECK(products.algorithms->shapes() == 2);
    args.y_stride = 8;  // less than a row
    CHECK(cuda::multiply(products, args, nullptr) >= cuda::kProductStatus);
    CHECK(!std::string(cuda::error_text(cuda::kProductStatus + 15)).empty());
  }

  TEST_CASE(
      "a 4-bit layer with a low-rank term, joined or added, of x or of another input, and all its "
      "gradients, are those of matrices in double within bfloat16") {
    struct Case {
      std::int64_t rank;
      bool joined, masked;
    };
    for (const Case each : {Case{0, true, false}, Case{0, false, false}, Case{3, true, false},
                            Case{3, false, true}, Case{16, true, true}, Case{16, false, false},
                            Case{70, true, false}, Case{70, false, true}}) {
      const std::int64_t rank = each.rank;
      const std::int64_t rows = 48, columns = 128, tokens = 24, blocks = rows * columns / 64;
      CAPTURE(rank);
      CAPTURE(each.joined);
      CAPTURE(each.masked);
      std::mt19937 random(5);
      std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns / 2));
      for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random());
      std::vector<float> absmax(static_cast<std::size_t>(blocks), 0.05f);
      const auto a = normal_floats(rank * columns, 6, 0.1f),
                 b = normal_floats(rows * rank, 7, 0.1f);
      const auto x = halves(normal_floats(tokens * columns, 8)),
                 dy = halves(normal_floats(tokens * rows, 9)),
                 bias = halves(normal_floats(rows, 10)),
                 input = each.masked ? halves(normal_floats(tokens * columns, 11)) : x;
      const double scale = 2.0;

      std::vector<std::uint8_t> space(kSpaceBytes);
      test::Mirror mirror;
      const cuda::DenseProducts products = products_with(mirror, space);
      cuda::LinearWeight weight{};
      weight.w.codes = all_of(mirror, codes);
      weight.w.rows = rows, weight.w.columns = columns, weight.w.blocksize = 64,
      weight.w.nested_blocksize = 1;
      weight.w.value = kBook.value;
      weight.w.absmax = all_of(mirror, absmax);
      weight.w.via = Float::bf16;
      if (rank > 0) weight.a = all_of(mirror, a), weight.b = all_of(mirror, b), weight.rank = rank;
      weight.scale = 2.0f;
      const std::int64_t r = weight.padding(), stride = weight.stride();
      CHECK(r % 64 == 0);
      // NaN everywhere: what is read before it is written shows.
      const auto nans = [](std::int64_t count) {
        return std::vector<std::uint16_t>(static_cast<std::size_t>(count), 0x7fc0);
      };
      auto filled = nans(weight.matrix_size()), x_and_u = nans(tokens * stride),
           u_apart = nans(tokens * r), v_apart = nans(tokens * r),
           dy_and_v = nans(tokens * (rows + r)), y = nans(tokens * rows),
           dx = nans(tokens * columns), dinput = nans(tokens * columns);
      std::vector<float> da(static_cast<std::size_t>(r * columns), std::nanf("")),
          db(static_cast<std::size_t>(rows * r), std::nanf(""));
      weight.matrix = all_of(mirror, filled);
      std::uint16_t *joined_x = each.joined ? all_of(mirror, x_and_u) : nullptr,
                    *apart = each.joined ? nullptr : all_of(mirror, u_apart);
      const std::uint16_t *device_x = all_of(mirror, x), *device_input = all_of(mirror, input);
      const std::uint16_t* inputs[] = {device_input};
      std::uint16_t* dinputs[] = {all_of(mirror, dinput)};
      int status = cuda::fill_matrix(weight, nullptr);
      REQUIRE(status == 0);
      status = cuda::linear_forward(products, weight,
                                    {.x = device_x,
                                     .tokens = tokens,
                                     .x_stride = columns,
                                     .bias = all_of(mirror, bias),
                                     .inputs = each.masked ? inputs : nullptr,
                                     .x_and_u = joined_x,
                                     .u = apart,
                                     .y = all_of(mirror, y),
                                     .y_stride = rows},
                                    nullptr);
      REQUIRE(status == 0);
      status = cuda::linear_backward(products, weight,
                                     {.dy = all_of(mirror, dy),
                                      .tokens = tokens,
                                      .dy_stride = rows,
                                      .dy_and_v = each.joined ? all_of(mirror, dy_and_v) : nullptr,
                                      .v = each.joined ? nullptr : all_of(mirror, v_apart),
                                      .x = device_x,
                                      .x_stride = columns,
                                      .inputs = each.masked ? inputs : nullptr,
                                      .u = each.joined && rank > 0 ? joined_x + columns : apart,
                                      .u_stride = each.joined ? stride : r,
                                      .dx = all_of(mirror, dx),
                                      .dx_stride = columns,
                                      .dinputs = each.masked ? dinputs : nullptr,
                                      .da = all_of(mirror, da),
                                      .db = all_of(mirror, db)},
                                     nullptr);
      mirror.finish(status);

      std::vector<std::uint16_t> dense(static_cast<std::size_t>(rows * columns));
      find_table("scalar")->dequantize_4bit({codes.data(), absmax.data(), rows * columns, 64,
                                             kBook.value, Float::bf16, Float::bf16, dense.data()});
      const Matrix w = matrix(dense, rows, columns, columns),
                   mx = matrix(x, tokens, columns, columns),
                   mi = matrix(input, tokens, columns, columns),
                   mdy = matrix(dy, tokens, rows, rows);
      const Matrix ma = matrix(a, rank, columns, columns), mb = matrix(b, rows, rank, rank);
      const Matrix u = scale * (mi * transposed(ma)), v = scale * (mdy * mb);
      Matrix expected = mx * transposed(w) + u * transposed(mb);
      for (std::int64_t t = 0; t < tokens; ++t) {
        for (std::int64_t n = 0; n < rows; ++n)
          expected.at(t, n) += bf16_to_f32(bias[static_cast<std::size_t>(n)]);
      }
      CHECK(error(matrix(y, tokens, rows, rows), expected) < 1e-2);
      const Matrix found = matrix(dx, tokens, columns, columns);
      CHECK(error(found, each.masked ? mdy * w : mdy * w + v * ma) < 1e-2);
      if (rank == 0) continue;
      if (each.masked) CHECK(error(matrix(dinput, tokens, columns, columns), v * ma) < 1e-2);
      CHECK(error(matrix(da, rank, columns, columns), transposed(v) * mi) < 1e-2);
      CHECK(error(matrix(db, rows, rank, r), transposed(mdy) * u) < 1e-2);
      for (std::int64_t i = rank * columns; i < r * columns; ++i)
        CHECK(da[static_cast<std::size_t>(i)] == 0.0f);
    }
  }

  TEST_CASE(
      "the head and the loss in chunks are those of all logits at once, with no logits beyond a "
      "chunk") {
    const std::int64_t rows = 11, size = 64, vocabulary = 96;
    const auto hidden = halves(normal_floats(rows * size, 1)),
               w = halves(normal_floats(vocabulary * size, 2, 0.3f));
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < rows; ++i) labels.push_back(i * 7 % vocabulary);
    const double grad_scale = 0.125;
    Matrix gradient =
        matrix(hidden, rows, size, size) * transposed(matrix(w, vocabulary, size, size));
    std::vector<double> losses;
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      const double picked = gradient.at(r, labels[static_cast<std::size_t>(r)]);
      for (std::int64_t c = 0; c < vocabulary; ++c) sum += std::exp(gradient.at(r, c));
      losses.push_back(std::log(sum) - picked);
      for (std::int64_t c = 0; c < vocabulary; ++c) {
        gradient.at(r, c) = grad_scale * (std::exp(gradient.at(r, c)) / sum -
                                          (c == labels[static_cast<std::size_t>(r)] ? 1 : 0));
      }
    }
    const Matrix dhidden = gradient * matrix(w, vocabulary, size, size);
    for (const std::int64_t chunk : {1, 4, 11, 100}) {
      for (const bool with_gradient : {true, false}) {
        CAPTURE(chunk);
        std::vector<std::uint8_t> space(kSpaceBytes);
        std::vector<std::uint16_t> logits(
            static_cast<std::size_t>(std::min(chunk, rows) * vocabulary)),
            found(static_cast<std::size_t>(rows * size), 0x7fc0);
        std::vector<float> largest(static_cast<std::size_t>(rows)), sum(largest), picked(largest);
        test::Mirror mirror;
        const cuda::DenseProducts products = products_with(mirror, space);
        mirror.finish(cuda::head_loss(products,
                                      {.hidden = all_of(mirror, hidden),
                                       .rows = rows,
                                       .size = size,
                                       .weight = all_of(mirror, w),
                                       .vocabulary = vocabulary,
                                       .labels = all_of(mirror, labels),
                                       .grad_scale = 0.125f,
                                       .dhidden = with_gradient ? all_of(mirror, found) : nullptr,
                                       .largest = all_of(mirror, largest),
                                       .sum = all_of(mirror, sum),
                                       .picked = all_of(mirror, picked),
                                       .logits = all_of(mirror, logits)},
                                      nullptr, chunk));
        for (std::size_t r = 0; r < losses.size(); ++r) {
          const double loss = std::log(double{sum[r]}) + double{largest[r]} - double{picked[r]};
          CHECK(std::abs(loss - losses[r]) < 0.02 * (1 + losses[r]));
        }
        if (with_gradient) CHECK(error(matrix(found, rows, size, size), dhidden) < 1e-2);
      }
    }
    CHECK(cuda::head_chunk(32000) == 2048);
    CHECK(cuda::head_chunk(128256) * 128256 * 2 <= 128 << 20);
  }

  TEST_CASE("no tokens give no results and gradients of zero; rows in place keep their distance") {
    std::vector<std::uint8_t> space(kSpaceBytes);
    std::vector<std::uint16_t> buffer(4096);
    std::vector<float> da(64 * 64, 1.0f), db(32 * 64, 1.0f);
    test::Mirror mirror;
    const cuda::DenseProducts products = products_with(mirror, space);
    std::uint16_t* place = all_of(mirror, buffer);
    cuda::LinearWeight weight{};
    weight.w.rows = 32, weight.w.columns = 64;
    weight.a = weight.b = reinterpret_cast<const float*>(place);
    weight.rank = 4;
    weight.matrix = place;
    CHECK(cuda::linear_forward(products, weight,
                               {.x = place,
                                .tokens = 0,
                                .x_stride = weight.stride(),
                                .x_and_u = place,
                                .y = place,
                                .y_stride = 32},
                               nullptr) == 0);
    mirror.finish(cuda::linear_backward(products, weight,
                                        {.dy = place,
                                         .tokens = 0,
                                         .dy_stride = 96,
                                         .dy_and_v = place,
                                         .dx = place,
                                         .dx_stride = 64,
                                         .da = all_of(mirror, da),
                                         .db = all_of(mirror, db)},
                                        nullptr));
    CHECK(da == std::vector<float>(da.size()));
    CHECK(db == std::vector<float>(db.size()));
    CHECK(
        cuda::linear_forward(
            products, weight,
            {.x = place, .tokens = 2, .x_stride = 64, .x_and_u = place, .y = place, .y_stride = 32},
            nullptr) != 0);
  }
}
