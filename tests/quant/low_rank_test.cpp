// Products beyond the plain 4-bit one: with a low-rank term, with a dense weight, of many rows.
// The reference is LibTorch's composed operations in float64.
#include <lorapp/error.hpp>
#include <lorapp/quant/ops.hpp>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "quant/operands.hpp"
#include "support/error_of.hpp"
#include "support/for_each_isa.hpp"

using namespace lorapp;
using test::contains;
using test::difference;
using test::error_of;
using test::random;

namespace {

torch::Tensor leaf(const torch::Tensor& x) {
  return x.defined() ? x.detach().clone().requires_grad_() : x;
}

// The operands of a layer with an adapter, and the gradients that they got.
struct Operands {
  torch::Tensor x, bias, a, b;
  torch::Tensor factors = {};  // of the mask, if there is one; no operand of the graph

  Operands copy(std::optional<torch::Dtype> dtype = std::nullopt) const {
    const auto convert = [&](const torch::Tensor& t) {
      return leaf(t.defined() && dtype ? t.to(*dtype) : t);
    };
    return {convert(x), convert(bias), convert(a), convert(b), factors};
  }
  std::vector<torch::Tensor> all() const { return {x, bias, a, b}; }
};

constexpr double kScale = 1.75;

// y of the fused layer; its gradients are in `operands`.
torch::Tensor fused(const Operands& operands, const QuantizedTensor& w, torch::Dtype compute) {
  LowRank term{operands.a, operands.b, kScale};
  if (operands.factors.defined()) {
    term.mask = [factors = operands.factors](const torch::Tensor& x) { return x * factors; };
  }
  const std::optional<torch::Tensor> bias =
      operands.bias.defined() ? std::optional(operands.bias) : std::nullopt;
  return linear_4bit(operands.x, w, bias, compute, term);
}

torch::Tensor composed(const Operands& operands, const torch::Tensor& dense) {
  const torch::Tensor input =
      operands.factors.defined() ? operands.x * operands.factors : operands.x;
  const torch::Tensor y = at::linear(
      operands.x, dense, operands.bias.defined() ? std::optional(operands.bias) : std::nullopt);
  return y + at::linear(at::linear(input, operands.a), operands.b) * kScale;
}

}  // namespace

TEST_SUITE("products") {
  TEST_CASE("a low-rank term and its gradients are the composed ones, for every table") {
    test::for_each_isa([](const std::string&) {
      for (const auto& each : std::vector<std::pair<int64_t, int64_t>>{{64, 128}, {33, 96}}) {
        const auto& out = each.first;
        const auto& in = each.second;
        const QuantizedTensor w = quantize_4bit(random({out, in}, 1)).packed();
        REQUIRE(w.is_packed());
        const torch::Tensor dense = dequantize_4bit(w).to(torch::kFloat64);
        for (const int64_t rows : {int64_t{1}, int64_t{4}, int64_t{5}, int64_t{37}, int64_t{500}}) {
          for (const bool masked : {false, true}) {
            for (const bool with_bias : {false, true}) {
              const int64_t rank = rows == 37 ? 200 : 8;  // more than one block of depth
              const Operands given{random({rows, in}, 2),
                                   with_bias ? random({out}, 3) : torch::Tensor(),
                                   random({rank, in}, 5), random({out, rank}, 6),
                                   masked ? random({rows, in}, 4) : torch::Tensor()};
              const Operands mine = given.copy(), reference = given.copy(torch::kFloat64);
              const torch::Tensor y = fused(mine, w, torch::kFloat32);
              const torch::Tensor want = composed(reference, dense);
              const torch::Tensor dy = random({rows, out}, 7);
              y.backward(dy);
              want.backward(dy.to(torch::kFloat64));
              INFO("[", out, ", ", in, "] rows ", rows, " masked ", masked);
              CHECK(difference(y, want) < 1e-6);
              const std::vector<torch::Tensor> operands = mine.all(), wanted = reference.all();
              for (std::size_t i = 0; i < operands.size(); ++i) {
                INFO("operand ", i);
                if (!operands[i].defined()) continue;
                CHECK(difference(operands[i].grad(), wanted[i].grad()) < 1e-6);
              }
            }
          }
        }
      }
    });
  }

  TEST_CASE("in bfloat16 the sum with a low-rank term is rounded once") {
    const QuantizedTensor w = quantize_4bit(random({96, 256}, 1, torch::kBFloat16)).packed();
    const torch::Tensor dense = dequantize_4bit(w).to(torch::kFloat64);
    const torch::Tensor x = random({40, 256}, 2, torch::kBFloat16);
    const torch::Tensor a = random({16, 256}, 3), b = random({96, 16}, 4);
    const Operands mine{leaf(x), {}, leaf(a), leaf(b)};
    const Operands reference = mine.copy(torch::kFloat64);
    const torch::Tensor y = fused(mine, w, torch::kBFloat16);
    const torch::Tensor want = composed(reference, dense);
    CHECK((y.scalar_type() == torch::kBFloat16));
    const torch::Tensor error = (y.to(torch::kFloat64) - want).abs();
    CHECK(error.div(want.abs() + 1e-2).max().item<double>() < 0x1p-8 * 1.01);
    const torch::Tensor dy = random({40, 96}, 5, torch::kBFloat16);
    y.backward(dy);
    want.backward(dy.to(torch::kFloat64));
    CHECK(difference(mine.x.grad(), reference.x.grad()) < 0x1p-8);
    CHECK(difference(mine.a.grad(), reference.a.grad()) < 1e-5);
    CHECK(difference(mine.b.grad(), reference.b.grad()) < 1e-5);
    CHECK((mine.a.grad().scalar_type() == torch::kFloat32));
  }

  TEST_CASE("a mask changes no bit against a product of x masked before, for every table") {
    test::for_each_isa([](const std::string&) {
      for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16}) {
        for (const int64_t rows : {int64_t{1}, int64_t{37}, int64_t{500}}) {
          // Without a base the products are those of the low-rank term alone.
          const QuantizedTensor w = quantize_4bit(torch::zeros({64, 128})).packed();
          const torch::Tensor factors = random({rows, 128}, 4).gt(0.3).to(torch::kFloat) * 1.5;
          const auto mask = [&](const torch::Tensor& x) { return x.to(torch::kFloat) * factors; };
          const torch::Tensor dy = random({rows, 64}, 7, dtype);
          std::vector<std::vector<torch::Tensor>> results;
          for (const bool before : {false, true}) {
            const torch::Tensor x = leaf(random({rows, 128}, 2, dtype));
            const torch::Tensor a = leaf(random({8, 128}, 5)), b = leaf(random({64, 8}, 6));
            LowRank term{a, b, kScale};
            if (!before) term.mask = mask;
            const torch::Tensor y =
                linear_4bit(before ? mask(x) : x, w, {}, torch::kFloat32, term).to(dtype);
            y.backward(dy);
            results.push_back({y, x.grad(), a.grad(), b.grad()});
          }
          for (std::size_t i = 0; i < results[0].size(); ++i) {
            INFO(dtype, " rows ", rows, " result ", i);
            CHECK(torch::equal(results[0][i], results[1][i]));
          }
        }
      }
    });
  }

  TEST_CASE("x is made again from its recipe, once a backward pass, and is not kept") {
    const QuantizedTensor w = quantize_4bit(random({32, 64}, 1)).packed();
    const torch::Tensor half = leaf(random({9, 64}, 2));
    const auto a_gradients = [&](bool from_recipe, int& calls) {
      const torch::Tensor a = leaf(random({4, 64}, 3)), b = random({32, 4}, 4);
      LowRank term{a, b};
      torch::Tensor x = half * 2;
      if (from_recipe) {
        term.recipe = Recipe{{half}, [&calls](const std::vector<torch::Tensor>& inputs) {
                               ++calls;
                               CHECK_FALSE(torch::GradMode::is_enabled());
                               return inputs.at(0) * 2;
                             }};
      }
      const torch::Tensor y = linear_4bit(x, w, {}, torch::kFloat32, term);
      const auto weak = c10::weak_intrusive_ptr<c10::StorageImpl>(x.storage().getWeakStorageImpl());
      x.reset();
      CHECK(weak.expired() == from_recipe);
      y.sum().backward({}, /*retain_graph=*/true);
      y.sum().backward();
      return a.grad();
    };
    int calls = 0;
    const torch::Tensor want = a_gradients(false, calls);
    CHECK(torch::equal(a_gradients(true, calls), want));
    CHECK(calls == 2);
  }

  TEST_CASE("a recipe whose input was changed after the forward pass is an error") {
    const QuantizedTensor w = quantize_4bit(random({32, 64}, 1)).packed();
    const torch::Tensor half = random({9, 64}, 2);
    LowRank term{leaf(random({4, 64}, 3)), random({32, 4}, 4)};
    term.recipe =
        Recipe{{half}, [](const std::vector<torch::Tensor>& inputs) { return inputs.at(0) * 2; }};
    const torch::Tensor y = linear_4bit(half * 2, w, {}, torch::kFloat32, term);
    half.add_(1);
    CHECK_THROWS_AS(y.sum().backward(), c10::Error);
  }

  TEST_CASE("only the operands that want a gradient get one") {
    const QuantizedTensor w = quantize_4bit(random({32, 64}, 1)).packed();
    const torch::Tensor x = random({9, 64}, 2);
    const torch::Tensor a = leaf(random({4, 64}, 3)), b = random({32, 4}, 4);
    linear_4bit(x, w, {}, torch::kFloat32, LowRank{a, b}).sum().backward();
    CHECK(a.grad().defined());
    CHECK_FALSE(b.grad().defined());
    CHECK_FALSE(x.grad().defined());
    CHECK_FALSE(linear_4bit(x, w, {}, torch::kFloat32, LowRank{a.detach(), b}).requires_grad());
  }

  TEST_CASE("a weight that cannot be packed takes a low-rank term too") {
    const QuantizedTensor w = quantize_4bit(random({32, 50}, 1));
    REQUIRE_FALSE(w.packed().is_packed());
    const Operands mine{leaf(random({9, 50}, 2)),
                        {},
                        leaf(random({4, 50}, 3)),
                        leaf(random({32, 4}, 4)),
                        random({9, 50}, 5)};
    const Operands reference = mine.copy();
    const torch::Tensor y = fused(mine, w, torch::kFloat32);
    const torch::Tensor want = composed(reference, dequantize_4bit(w));
    CHECK(difference(y, want) < 1e-6);
    y.sum().backward();
    want.sum().backward();
    CHECK(difference(mine.x.grad(), reference.x.grad()) < 1e-6);
    CHECK(difference(mine.b.grad(), reference.b.grad()) < 1e-6);
  }

  TEST_CASE("a low-rank term that does not fit is an Error that says what was expected") {
    const QuantizedTensor w = quantize_4bit(random({32, 64}, 1));
    const torch::Tensor x = random({9, 64}, 2), a = random({4, 64}, 3), b = random({32, 4}, 4);
    const auto message = [&](const LowRank& term) {
      return error_of([&] { linear_4bit(x, w, {}, torch::kFloat32, term); });
    };
    CHECK(contains(message({random({4, 63}, 3), b}), "[4, 64]"));
    CHECK(contains(message({a, random({32, 5}, 4)}), "[32, 4]"));
    CHECK(contains(message({a, b.to(torch::kBFloat16)}), "B of the low-rank term is BFloat16"));
    CHECK(contains(message({a, torch::Tensor()}), "undefined"));
    const auto wrong_mask = [](const torch::Tensor& rows) { return rows.slice(0, 1); };
    CHECK(contains(message({a, b, 1, wrong_mask}), "Float [8, 64] on cpu; expected"));
  }

  TEST_CASE("a dense layer and its gradients are LibTorch's, for every table and type") {
    test::for_each_isa([](const std::string&) {
      for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kFloat16}) {
        const double allowed = dtype == torch::kFloat32 ? 1e-6 : 0x1p-8;
        for (const auto& each :
             std::vector<std::pair<int64_t, int64_t>>{{64, 128}, {33, 70}, {1, 3}, {7, 1}}) {
          const auto& out = each.first;
          const auto& in = each.second;
          for (const int64_t rows : {int64_t{1}, int64_t{3}, int64_t{5}, int64_t{500}}) {
            for (const bool with_bias : {false, true}) {
              const torch::Tensor x = leaf(random({rows, in}, 1, dtype));
              const torch::Tensor w = leaf(random({out, in}, 2, dtype));
              const torch::Tensor bias = leaf(random({out}, 3, dtype));
              const auto added = with_bias ? std::optional(bias) : std::nullopt;
              const torch::Tensor y = linear_dense(x, w, added);
              const torch::Tensor dy = random({rows, out}, 4, dtype);
              y.backward(dy);
              const torch::Tensor wide_x = leaf(x.to(torch::kFloat64));
              const torch::Tensor wide_w = leaf(w.to(torch::kFloat64));
              torch::Tensor want = at::linear(wide_x, wide_w);
              if (with_bias) want = want + bias.detach().to(torch::kFloat64);
              want.backward(dy.to(torch::kFloat64));
              INFO(dtype, " [", out, ", ", in, "] rows ", rows, " bias ", with_bias);
              CHECK((y.scalar_type() == dtype));
              CHECK(difference(y, want) < allowed);
              CHECK(difference(x.grad(), wide_x.grad()) < allowed);
              CHECK(difference(w.grad(), wide_w.grad()) < allowed);
              if (with_bias) {
                CHECK(difference(bias.grad(), dy.to(torch::kFloat64).sum(0)) < allowed);
              }
            }
          }
        }
      }
    });
  }

  TEST_CASE("a dense layer takes views, no rows, and types that the kernels do not") {
    const torch::Tensor w = random({24, 80}, 1);
    const torch::Tensor x = random({10, 160}, 2).slice(1, 0, 160, 2);
    const torch::Tensor view = w.slice(1, 8, 72);
    CHECK(difference(linear_dense(x, w), at::linear(x, w)) < 1e-6);
    CHECK(difference(linear_dense(x.slice(1, 0, 64), view), at::linear(x.slice(1, 0, 64), view)) <
          1e-6);
    CHECK(linear_dense(random({0, 80}, 2), w).sizes() == torch::IntArrayRef({0, 24}));
    CHECK(difference(linear_dense(x.to(torch::kFloat64), w.to(torch::kFloat64)), at::linear(x, w)) <
          1e-6);
    CHECK(linear_dense(random({2, 3, 80}, 2), w).sizes() == torch::IntArrayRef({2, 3, 24}));
  }

  TEST_CASE("results do not depend on the number of threads") {
    const QuantizedTensor w = quantize_4bit(random({512, 512}, 1)).packed();
    const torch::Tensor x = random({600, 512}, 2), one = random({1, 512}, 3);
    const torch::Tensor a = random({8, 512}, 4), b = random({512, 8}, 5);
    const int threads = at::get_num_threads();
    std::vector<torch::Tensor> results[2];
    for (const int count : {1, 2}) {
      at::set_num_threads(count);
      const torch::Tensor input = leaf(x);
      const torch::Tensor y = linear_4bit(input, w, {}, torch::kFloat32, LowRank{leaf(a), b});
      y.backward(x);
      results[count - 1] = {y, input.grad(), linear_4bit(one, w, {}, torch::kFloat32)};
    }
    at::set_num_threads(threads);
    for (std::size_t i = 0; i < results[0].size(); ++i) {
      CHECK(torch::equal(results[0][i], results[1][i]));
    }
  }
}
