// Weights in 8 bits: quantize_int8, dequantize_int8, linear_int8.
#include <lorapp/error.hpp>
#include <lorapp/quant/int8_weight.hpp>

#include "support/error_of.hpp"
#include "support/for_each_isa.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace lorapp;
using lorapp::test::error_of;

namespace {

constexpr torch::Dtype kDtypes[] = {torch::kFloat32, torch::kBFloat16, torch::kFloat16};

torch::Tensor random(std::vector<std::int64_t> shape, std::uint64_t seed = 1) {
  return torch::randn(shape, at::detail::createCPUGenerator(seed));
}

// Of one element of a result: half a unit in the last place, relative.
double half_ulp(torch::Dtype dtype) {
  return dtype == torch::kFloat32 ? 0x1p-24 : dtype == torch::kBFloat16 ? 0x1p-8 : 0x1p-11;
}

// The largest |got − x · Wᵀ| in units of what rounding operands, sums and the result may do.
double worst_error(const torch::Tensor& got,
                   const torch::Tensor& x,
                   const torch::Tensor& w,
                   torch::Dtype dtype,
                   bool rounds_weights) {
  const torch::Tensor wide_x = x.to(torch::kFloat64), wide_w = w.to(torch::kFloat64);
  const torch::Tensor want = at::matmul(wide_x, wide_w.t());
  const torch::Tensor size = at::matmul(wide_x.abs(), wide_w.abs().t());
  const double operands = 1e-6 + (rounds_weights ? half_ulp(dtype) : 0.0);
  const torch::Tensor allowed = size * operands + want.abs() * 1.01 * half_ulp(dtype) + 1e-30;
  return ((got.to(torch::kFloat64) - want).abs() / allowed).max().item<double>();
}

}  // namespace

TEST_SUITE("int8") {
  TEST_CASE("a code stands for its weight within half a step, in every dtype") {
    for (const torch::Dtype dtype : kDtypes) {
      const torch::Tensor w = random({37, 131}).to(dtype);
      const Int8Weight q = quantize_int8(w);
      CHECK((q.dtype == dtype));
      CHECK((q.codes.scalar_type() == torch::kChar));
      CHECK(q.nbytes() == 37 * 131 + 37 * 4);
      const torch::Tensor wide = w.to(torch::kFloat32);
      CHECK(torch::equal(q.absmax, wide.abs().amax(1)));
      CHECK(torch::equal(q.codes.abs().amax(1), torch::full({37}, 127, torch::kChar)));
      const torch::Tensor error = (dequantize_int8(q, torch::kFloat32) - wide).abs();
      CHECK(error.le(q.absmax.unsqueeze(1) * ((1 + 1e-5) / 254)).all().item<bool>());
      CHECK((dequantize_int8(q).scalar_type() == dtype));
    }
  }

  TEST_CASE("ties go to the even code, rows of zeros to zeros, and tiny rows keep their shape") {
    const torch::Tensor w = torch::tensor(
        {{127.0f, 0.5f, 1.5f, -2.5f}, {0.0f, -0.0f, 0.0f, 0.0f}, {1e-40f, -1e-40f, 5e-41f, 0.0f}});
    const Int8Weight q = quantize_int8(w);
    const torch::Tensor want =
        torch::tensor({{127, 0, 2, -2}, {0, 0, 0, 0}, {127, -127, 64, 0}}).to(torch::kChar);
    CHECK(torch::equal(q.codes, want));
    CHECK(q.absmax[1].item<float>() == 0.0f);
    CHECK(torch::equal(dequantize_int8(q)[1], torch::zeros({4})));
  }

  TEST_CASE("views give what their copies give, with any number of threads") {
    const torch::Tensor w = random({600, 700});
    const Int8Weight want = quantize_int8(w.slice(0, 1, 590, 3).slice(1, 5, 699).clone());
    const int threads = at::get_num_threads();
    for (const int count : {1, 3}) {
      at::set_num_threads(count);
      const Int8Weight rows = quantize_int8(w.slice(0, 1, 590, 3).slice(1, 5, 699));
      const Int8Weight turned =
          quantize_int8(w.t().contiguous().t().slice(0, 1, 590, 3).slice(1, 5, 699));
      for (const Int8Weight& got : {rows, turned}) {
        CHECK(torch::equal(got.codes, want.codes));
        CHECK(torch::equal(got.absmax, want.absmax));
      }
    }
    at::set_num_threads(threads);
  }

  TEST_CASE("what cannot be quantized is an Error that names the weight and the place") {
    torch::Tensor w = random({300, 1000});
    w[299][3] = INFINITY;
    w[211][998] = NAN;
    const std::string message = error_of([&] { quantize_int8(w, "lm_head.weight"); });
    CHECK(message.find("lm_head.weight[211, 998] is nan") != std::string::npos);
    CHECK(error_of([&] { quantize_int8(random({4}), "w"); }).find("w has the shape [4]") !=
          std::string::npos);
    CHECK(error_of([&] {
            quantize_int8(torch::ones({2, 2}, torch::kInt64), "w");
          }).find("w is Long") != std::string::npos);
    CHECK(error_of([&] {
            quantize_int8(torch::empty({0, 3}), "w");
          }).find("at least one") != std::string::npos);
    CHECK(error_of([&] { quantize_int8({}, "w"); }).find("undefined") != std::string::npos);
  }

  TEST_CASE("linear_int8 is the product with the dequantized weight, on every instruction set") {
    const torch::Tensor w = random({77, 141}, 2);
    const Int8Weight q = quantize_int8(w);
    const torch::Tensor values = dequantize_int8(q);
    test::for_each_isa([&](const std::string&) {
      for (const torch::Dtype dtype : kDtypes) {
        for (const std::int64_t rows : {0, 1, 4, 5, 33, 500}) {
          const torch::Tensor x = random({rows, 141}, 3).to(dtype);
          const torch::Tensor y = linear_int8(x, q);
          REQUIRE((y.scalar_type() == dtype));
          REQUIRE(y.sizes() == torch::IntArrayRef({rows, 77}));
          if (rows > 0) REQUIRE(worst_error(y, x, values, dtype, rows > 4) < 1);
        }
      }
    });
    const torch::Tensor x = random({2, 3, 141}, 4);
    const torch::Tensor bias = random({77}, 5);
    CHECK(torch::allclose(linear_int8(x, q, bias), at::linear(x, values, bias), 1e-4, 1e-4));
    CHECK(linear_int8(random({141}, 6), q).sizes() == torch::IntArrayRef({77}));
    const torch::Tensor wide = linear_int8(random({3, 141}, 6).to(torch::kFloat64), q);
    CHECK((wide.scalar_type() == torch::kFloat64));
  }

  TEST_CASE("logits are those of the dense weight within sum |x| times absmax / 254") {
    const torch::Tensor w = random({200, 96}, 7), x = random({6, 96}, 8);
    const Int8Weight q = quantize_int8(w);
    const torch::Tensor error = (linear_int8(x, q) - at::linear(x, w)).abs();
    const torch::Tensor sums = x.abs().sum(1, /*keepdim=*/true);
    const torch::Tensor allowed = sums * q.absmax * ((1 + 1e-4) / 254) + sums * 1e-5;
    CHECK(error.le(allowed).all().item<bool>());
    CHECK(error.max().item<double>() > 1e-4);  // it is not the dense product
  }

  TEST_CASE("the gradient of x is dy W, of the bias the sum of dy; the weight has none") {
    const Int8Weight q = quantize_int8(random({77, 141}, 9));
    const torch::Tensor values = dequantize_int8(q);
    test::for_each_isa([&](const std::string&) {
      for (const torch::Dtype dtype : kDtypes) {
        for (const std::int64_t rows : {1, 33}) {
          const torch::Tensor x = random({rows, 141}, 10).to(dtype).requires_grad_();
          const torch::Tensor bias = random({77}, 11).to(dtype).requires_grad_();
          const torch::Tensor y = linear_int8(x, q, bias);
          const torch::Tensor dy = random({rows, 77}, 12).to(dtype);
          y.backward(dy);
          REQUIRE((x.grad().scalar_type() == dtype));
          REQUIRE(worst_error(x.grad(), dy, values.t(), dtype, true) < 1);
          const torch::Tensor want = dy.to(torch::kFloat32).sum(0).to(dtype);
          REQUIRE(torch::allclose(bias.grad(), want, 1e-2, 1e-2));
        }
      }
    });
    const torch::Tensor x = random({3, 141}, 13).requires_grad_();
    const torch::Tensor y = linear_int8(x, q);
    const std::string message = error_of(
        [&] { torch::autograd::grad({y.sum()}, {x}, {}, std::nullopt, /*create_graph=*/true); });
    CHECK(message.find("second derivatives") != std::string::npos);
    CHECK_FALSE(linear_int8(random({3, 141}, 14), q).requires_grad());
  }

  TEST_CASE("operands that do not fit are an Error") {
    const Int8Weight q = quantize_int8(random({5, 7}));
    CHECK(error_of([&] {
            linear_int8(random({2, 8}), q);
          }).find("last dimension of 7") != std::string::npos);
    CHECK(error_of([&] {
            linear_int8(random({2, 7}), q, random({4}));
          }).find("shape [5]") != std::string::npos);
    CHECK(error_of([&] {
            linear_int8(random({2, 7}), Int8Weight());
          }).find("no codes") != std::string::npos);
    CHECK(error_of([&] {
            linear_int8(torch::ones({2, 7}, torch::kInt64), q);
          }).find("x is Long") != std::string::npos);
    Int8Weight scaleless = q;
    scaleless.absmax = torch::ones({4});
    CHECK(error_of([&] {
            linear_int8(random({2, 7}), scaleless);
          }).find("no absmax [5]") != std::string::npos);
  }
}
