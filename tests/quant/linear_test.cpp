// linear_4bit: values and gradients equal those of the dense linear with the dequantized weight.
// And what the graph keeps: packed codes, nothing dense.
#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include "quant/operands.hpp"
#include "support/for_each_isa.hpp"

using namespace lorapp;
using test::difference;
using test::random;

namespace {

struct Result {
  torch::Tensor y, dx, dbias;
};

Result run(torch::Tensor x,
           std::optional<torch::Tensor> bias,
           const std::function<torch::Tensor(const torch::Tensor&,
                                             const std::optional<torch::Tensor>&)>& f) {
  x = x.detach().requires_grad_();
  if (bias) bias = bias->detach().clone().requires_grad_();
  const torch::Tensor y = f(x, bias);
  const torch::Tensor dy = random(y.sizes().vec(), 99).to(y.scalar_type());
  y.backward(dy);
  return {y.detach(), x.grad(), bias ? bias->grad() : torch::Tensor()};
}

}  // namespace

TEST_SUITE("linear_4bit") {
  TEST_CASE("forward and gradients equal the dense linear's, for every shape, table and bias") {
    const std::vector<std::vector<int64_t>> leading = {{}, {1}, {5}, {2, 3}, {2, 1, 4}};
    test::for_each_isa([&](const std::string&) {
      for (const auto& [out, in] :
           std::vector<std::pair<int64_t, int64_t>>{{64, 128}, {33, 70}, {1, 3}, {7, 1}}) {
        for (const bool nested : {false, true}) {
          for (const bool with_bias : {false, true}) {
            const QuantizedTensor w =
                quantize_4bit(random({out, in}), {.use_double_quant = nested});
            const torch::Tensor dense = dequantize_4bit(w);
            for (std::vector<int64_t> shape : leading) {
              shape.push_back(in);
              const torch::Tensor x = random(shape, 2);
              std::optional<torch::Tensor> bias;
              if (with_bias) bias = random({out}, 3);
              const Result got = run(x, bias, [&](const auto& a, const auto& b) {
                return linear_4bit(a, w, b, torch::kFloat32);
              });
              const Result want = run(x, bias, [&](const auto& a, const auto& b) {
                return torch::linear(a, dense, b.value_or(torch::Tensor()));
              });
              CHECK(got.y.sizes() == want.y.sizes());
              CHECK(got.dx.sizes() == want.dx.sizes());
              CHECK(difference(got.y, want.y) < 1e-6);
              CHECK(difference(got.dx, want.dx) < 1e-6);
              if (with_bias) CHECK(difference(got.dbias, want.dbias) < 1e-6);
            }
          }
        }
      }
    });
  }

  TEST_CASE("in float64 the gradient is the numerical derivative") {
    const QuantizedTensor w = quantize_4bit(random({6, 37}));
    const torch::Tensor x = random({3, 37}, 2).to(torch::kFloat64).requires_grad_();
    const torch::Tensor bias = random({6}, 3).to(torch::kFloat64).requires_grad_();
    const auto loss = [&](const torch::Tensor& a, const torch::Tensor& b) {
      return linear_4bit(a, w, b, torch::kFloat64).tanh().sum();
    };
    loss(x, bias).backward();
    const torch::NoGradGuard no_grad;
    const auto check = [&](const torch::Tensor& input,
                           const std::function<double(const torch::Tensor&)>& f) {
      for (int64_t i = 0; i < input.numel(); i += 5) {
        const torch::Tensor step = torch::zeros_like(input);
        step.view({-1})[i] = 1e-5;
        const double numeric = (f(input + step) - f(input - step)) / 2e-5;
        const double analytic = input.grad().view({-1})[i].item<double>();
        CHECK(std::abs(numeric - analytic) < 1e-8 * (1 + std::abs(analytic)));
      }
    };
    check(x, [&](const torch::Tensor& a) { return loss(a, bias).item<double>(); });
    check(bias, [&](const torch::Tensor& b) { return loss(x, b).item<double>(); });
  }

  TEST_CASE("the product is computed in compute_dtype and returned in the dtype of x") {
    for (const auto weight_dtype : {torch::kFloat32, torch::kBFloat16}) {
      const QuantizedTensor w = quantize_4bit(random({40, 96}).to(weight_dtype));
      for (const auto compute : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
        for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
          const torch::Tensor x = random({5, 96}, 2).to(dtype);
          const torch::Tensor bias = random({40}, 3);
          const Result got = run(
              x, bias, [&](const auto& a, const auto& b) { return linear_4bit(a, w, b, compute); });
          CHECK((got.y.scalar_type() == dtype));
          CHECK((got.dx.scalar_type() == dtype));
          CHECK((got.dbias.scalar_type() == torch::kFloat32));
          const Result want = run(x, bias, [&](const auto& a, const auto& b) {
            return torch::linear(a.to(compute), dequantize_4bit(w, compute), b->to(compute))
                .to(dtype);
          });
          CHECK(difference(got.y, want.y) < 1e-6);
          CHECK(difference(got.dx, want.dx) < 1e-6);
          CHECK(difference(got.dbias, want.dbias) < (compute == torch::kFloat32 ? 1e-6 : 1e-2));
        }
      }
    }
  }

  TEST_CASE("zero rows give an empty result and empty gradients") {
    const QuantizedTensor w = quantize_4bit(random({8, 64}));
    const torch::Tensor x = torch::empty({0, 64}).requires_grad_();
    const torch::Tensor bias = torch::ones({8}).requires_grad_();
    const torch::Tensor y = linear_4bit(x, w, bias);
    CHECK(y.sizes() == std::vector<int64_t>{0, 8});
    y.sum().backward();
    CHECK(x.grad().sizes() == std::vector<int64_t>{0, 64});
    CHECK(torch::equal(bias.grad(), torch::zeros({8})));
    CHECK(linear_4bit(torch::empty({2, 0, 64}), w).sizes() == std::vector<int64_t>{2, 0, 8});
  }

  TEST_CASE("x and the incoming gradient may be non-contiguous") {
    const QuantizedTensor w = quantize_4bit(random({24, 40}));
    const torch::Tensor dense = dequantize_4bit(w);
    const torch::Tensor base = random({40, 3, 4}, 2);
    const torch::Tensor x = base.permute({1, 2, 0}).detach().requires_grad_();
    const torch::Tensor dy = random({24}, 4).expand({3, 4, 24});
    const torch::Tensor y = linear_4bit(x, w, {}, torch::kFloat32);
    CHECK(difference(y.detach(), torch::linear(x.detach(), dense)) < 1e-6);
    y.backward(dy);
    CHECK(difference(x.grad(), torch::matmul(dy, dense)) < 1e-6);
  }

  TEST_CASE("only what requires a gradient gets one, and without any there is no graph") {
    const QuantizedTensor w = quantize_4bit(random({8, 64}));
    const torch::Tensor x = random({2, 64}, 2);
    const torch::Tensor bias = torch::zeros({8}).requires_grad_();
    CHECK(!linear_4bit(x, w).requires_grad());
    linear_4bit(x, w, bias).sum().backward();
    CHECK(!x.grad().defined());
    CHECK(torch::equal(bias.grad(), torch::full({8}, 2.0f)));
    const torch::NoGradGuard no_grad;
    CHECK(!linear_4bit(x, w, bias).requires_grad());
  }

  TEST_CASE("a graph may be walked twice if it is retained") {
    const QuantizedTensor w = quantize_4bit(random({8, 64}));
    const torch::Tensor x = random({2, 64}, 2).requires_grad_();
    const torch::Tensor y = linear_4bit(x, w).sum();
    y.backward({}, /*retain_graph=*/true);
    const torch::Tensor once = x.grad().clone();
    y.backward();
    CHECK(torch::equal(x.grad(), once * 2));
  }

#if defined(__GLIBC__)
  TEST_CASE("a graph holds no dense weight: only what the dense linear's would hold shows") {
    const auto bytes_in_use = [] {
      const struct mallinfo2 info = mallinfo2();
      return static_cast<double>(info.uordblks + info.hblkhd);
    };
    const QuantizedTensor w = quantize_4bit(random({1024, 4096}));
    const double dense_bytes = 4.0 * 1024 * 4096;
    const torch::Tensor x = random({2, 4096}, 2).requires_grad_();
    linear_4bit(x, w, {}, torch::kFloat32);  // whatever is allocated once

    const double before = bytes_in_use();
    const torch::Tensor composed = torch::linear(x, dequantize_4bit(w));
    const double between = bytes_in_use();
    const torch::Tensor y = linear_4bit(x, w, {}, torch::kFloat32);
    const double after = bytes_in_use();
    if (between - before < dense_bytes) {
      MESSAGE("skipped: this allocator does not count the memory in use");
      return;
    }
    CHECK(after - between < dense_bytes / 100);
    CHECK(y.requires_grad());
    CHECK(composed.requires_grad());
  }
#endif

  TEST_CASE("second derivatives are an Error, not a silent zero") {
    const QuantizedTensor w = quantize_4bit(random({8, 64}));
    const torch::Tensor x = random({2, 64}, 2).requires_grad_();
    const torch::Tensor loss = linear_4bit(x, w).pow(2).sum();
    CHECK_THROWS_WITH(torch::autograd::grad({loss}, {x}, {}, true, /*create_graph=*/true),
                      doctest::Contains("second derivatives are not supported"));
    // A loss whose gradient is constant has nothing to differentiate: this is exact.
    const torch::Tensor linear_loss = linear_4bit(x, w).sum();
    CHECK(torch::autograd::grad({linear_loss}, {x}, {}, true, /*create_graph=*/true)[0].defined());
  }

  TEST_CASE("shapes, dtypes and devices that do not fit are Errors that say what was expected") {
    const QuantizedTensor w = quantize_4bit(random({8, 64}));
    const torch::Tensor x = random({2, 64});
    CHECK_THROWS_WITH_AS(
        linear_4bit(random({2, 63}), w),
        doctest::Contains("x has shape [2, 63], expected [..., 64] for a weight of shape [8, 64]"),
        Error);
    CHECK_THROWS_WITH_AS(linear_4bit(torch::tensor(1.0f), w), doctest::Contains("x has shape []"),
                         Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x.to(torch::kInt), w), doctest::Contains("x is Int"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(torch::Tensor(), w), doctest::Contains("undefined"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x, w, torch::ones({9})),
                         doctest::Contains("bias has shape [9], expected [8]"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x, w, torch::ones({1, 8})),
                         doctest::Contains("bias has shape [1, 8]"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x, w, torch::ones({8}).to(torch::kInt)),
                         doctest::Contains("bias is Int"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x, w, {}, torch::kInt),
                         doctest::Contains("compute_dtype is Int"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x, quantize_4bit(random({64}))),
                         doctest::Contains("the weight has shape [64]"), Error);
    CHECK_THROWS_WITH_AS(linear_4bit(x.to(torch::kMeta), w), doctest::Contains("x is on meta"),
                         Error);
  }
}
