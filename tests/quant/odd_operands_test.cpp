// Products of operands that are ragged, strided, at odd addresses, empty or not finite, with packed
// and dense weights: beside the same of plain copies, or in float64.
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "quant/operands.hpp"
#include "support/for_each_isa.hpp"
#include "support/odd_address.hpp"

using namespace lorapp;
using test::difference;
using test::random;

namespace {

constexpr torch::Dtype kTypes[] = {torch::kFloat32, torch::kBFloat16, torch::kFloat16};

// The same values in other places: contiguous but one element behind an aligned address; every
// second column of a wider matrix; column by column; every third row.
using View = std::function<torch::Tensor(const torch::Tensor&)>;
const std::vector<std::pair<std::string, View>>& views() {
  static const std::vector<std::pair<std::string, View>> kViews = {
      {"at an odd address", test::at_odd_address},
      {"with gaps between columns",
       [](const torch::Tensor& x) {
         return torch::stack({x, torch::full_like(x, std::nan(""))}, -1).select(-1, 0);
       }},
      {"transposed",
       [](const torch::Tensor& x) { return x.transpose(0, -1).contiguous().transpose(0, -1); }},
      {"with gaps between rows", [](const torch::Tensor& x) {
         const torch::Tensor gap = torch::full_like(x, std::nan(""));
         return torch::stack({gap, x, gap}, 1).select(1, 1);
       }}};
  return kViews;
}

// All that a layer gives: y and the gradients of what it was given.
std::vector<torch::Tensor> results_of(const std::vector<torch::Tensor>& operands,
                                      const View& place_gradient,
                                      const std::function<torch::Tensor()>& layer) {
  const torch::Tensor y = layer();
  std::vector<torch::Tensor> leaves;
  for (const torch::Tensor& operand : operands) {
    if (operand.requires_grad()) leaves.push_back(operand);
  }
  const torch::Tensor dy = place_gradient(random(y.sizes().vec(), 77, y.scalar_type()));
  std::vector<torch::Tensor> results = torch::autograd::grad({y}, leaves, {dy});
  results.insert(results.begin(), y.detach());
  return results;
}

bool finite(const torch::Tensor& x) { return x.isfinite().all().item<bool>(); }

}  // namespace

TEST_SUITE("products") {
  TEST_CASE("packed weights of any height and of any number of 32 columns are multiplied") {
    test::for_each_isa([](const std::string&) {
      for (const auto& each : std::vector<std::pair<int64_t, int64_t>>{
               {1, 32}, {1, 64}, {15, 32}, {17, 96}, {31, 160}, {16, 480}, {130, 32}}) {
        const auto& out = each.first;
        const auto& in = each.second;
        for (const bool nested : {false, true}) {
          const QuantizedTensor w =
              quantize_4bit(random({out, in}, 1), {.use_double_quant = nested}).packed();
          REQUIRE(w.is_packed());
          const torch::Tensor dense = dequantize_4bit(w).to(torch::kFloat64);
          for (const int64_t rows : {1, 2, 4, 5, 6, 13}) {
            INFO("[", out, ", ", in, "] rows ", rows, " nested ", nested);
            const torch::Tensor x = random({rows, in}, 2).requires_grad_();
            const auto got = results_of(
                {x}, [](const torch::Tensor& dy) { return dy; },
                [&] { return linear_4bit(x, w, {}, torch::kFloat32); });
            const torch::Tensor wide = x.detach().to(torch::kFloat64);
            // One number may be small for having cancelled.
            CHECK(difference(got[0], at::linear(wide, dense)) < (rows * out == 1 ? 1e-5 : 1e-6));
            CHECK(difference(got[1], random({rows, out}, 77).to(torch::kFloat64).mm(dense)) < 1e-6);
          }
        }
      }
    });
  }

  TEST_CASE(
      "a packed layer with an adapter gives for views of its operands what it does for them") {
    const QuantizedTensor w = quantize_4bit(random({33, 96}, 1)).packed();
    REQUIRE(w.is_packed());
    test::for_each_isa([&](const std::string&) {
      for (const torch::Dtype dtype : kTypes) {
        for (const int64_t rows : {3, 29}) {
          const std::vector<torch::Tensor> plain = {random({rows, 96}, 2, dtype), random({33}, 3),
                                                    random({7, 96}, 5), random({33, 7}, 6)};
          const torch::Tensor factors = random({rows, 96}, 4);
          const auto run = [&](const View& place) {
            std::vector<torch::Tensor> o;
            for (const torch::Tensor& x : plain) o.push_back(place(x).requires_grad_());
            return results_of(o, place, [&] {
              LowRank term{o[2], o[3], 0.5};
              term.mask = [mask = place(factors)](const torch::Tensor& x) {
                return x.to(torch::kFloat32) * mask;
              };
              return linear_4bit(o[0], w, o[1], torch::kFloat32, term);
            });
          };
          const auto want = run([](const torch::Tensor& x) { return x.clone(); });
          for (const auto& each : views()) {
            const auto& name = each.first;
            const auto& place = each.second;
            INFO(name, " ", dtype, " rows ", rows);
            const auto got = run(place);
            // LibTorch, which may sum in another order, makes the gradient of the bias, the third
            // result, and the adapter's part of a few rows.
            for (std::size_t i = 0; i < want.size(); ++i) {
              CHECK(difference(got[i], want[i]) < (dtype == torch::kFloat32 ? 1e-6 : 1e-3));
              if (rows > 4 && i != 2) CHECK(torch::equal(got[i], want[i]));
            }
          }
        }
      }
    });
  }

  TEST_CASE("a dense layer gives for views of its operands what it does for them") {
    test::for_each_isa([](const std::string&) {
      for (const torch::Dtype dtype : kTypes) {
        for (const int64_t rows : {3, 29}) {
          const std::vector<torch::Tensor> plain = {
              random({rows, 47}, 2, dtype), random({35, 47}, 3, dtype), random({35}, 4, dtype)};
          const auto run = [&](const View& place) {
            std::vector<torch::Tensor> o;
            for (const torch::Tensor& x : plain) o.push_back(place(x).requires_grad_());
            return results_of(o, place, [&] { return linear_dense(o[0], o[1], o[2]); });
          };
          const auto want = run([](const torch::Tensor& x) { return x.clone(); });
          for (const auto& each : views()) {
            const auto& name = each.first;
            const auto& place = each.second;
            INFO(name, " ", dtype, " rows ", rows);
            const auto got = run(place);
            for (std::size_t i = 0; i < want.size(); ++i) {
              CHECK(difference(got[i], want[i]) < (dtype == torch::kFloat32 ? 1e-6
                                                   : dtype == torch::kHalf  ? 1e-3
                                                                            : 8e-3));
            }
          }
        }
      }
    });
  }

  TEST_CASE("a row that is repeated by its stride is multiplied as often as it is there") {
    const QuantizedTensor w = quantize_4bit(random({20, 64}, 1)).packed();
    const torch::Tensor row = random({1, 64}, 2), matrix = random({20, 64}, 3);
    for (const int64_t rows : {4, 30}) {
      const torch::Tensor repeated = row.expand({rows, 64});
      CHECK(torch::equal(linear_4bit(repeated, w, {}, torch::kFloat32),
                         linear_4bit(repeated.contiguous(), w, {}, torch::kFloat32)));
      CHECK(torch::equal(linear_dense(repeated, matrix),
                         linear_dense(repeated.contiguous(), matrix)));
    }
  }

  TEST_CASE("a weight at an odd address is quantized to the same bytes") {
    test::for_each_isa([&](const std::string&) {
      for (const torch::Dtype dtype : kTypes) {
        const torch::Tensor w = random({9, 70}, 1, dtype), moved = test::at_odd_address(w);
        REQUIRE(moved.data_ptr() != w.data_ptr());
        const QuantizedTensor a = quantize_4bit(w), b = quantize_4bit(moved);
        CHECK(torch::equal(a.codes(), b.codes()));
        CHECK(torch::equal(a.absmax(), b.absmax()));
      }
    });
    // Parts at odd addresses, as a file may hold them.
    const QuantizedTensor plain = quantize_4bit(random({9, 96}, 1), {.use_double_quant = true});
    QuantizedTensor::Parts parts = plain.parts();
    for (torch::Tensor* part : {&parts.codes, &parts.absmax, &parts.nested_absmax}) {
      *part = test::at_odd_address(*part);
    }
    const QuantizedTensor moved = QuantizedTensor::from_parts(parts);
    CHECK(torch::equal(dequantize_4bit(moved), dequantize_4bit(plain)));
    CHECK(torch::equal(dequantize_4bit(moved.packed()), dequantize_4bit(plain)));
  }

  TEST_CASE("no rows give no results, and gradients of zero for what has a shape of its own") {
    const QuantizedTensor w = quantize_4bit(random({20, 64}, 1)).packed();
    for (const std::vector<int64_t>& shape :
         {std::vector<int64_t>{0, 64}, std::vector<int64_t>{3, 0, 64}}) {
      const torch::Tensor x = torch::empty(shape).requires_grad_();
      const torch::Tensor a = random({5, 64}, 2).requires_grad_();
      const torch::Tensor b = random({20, 5}, 3).requires_grad_();
      const torch::Tensor matrix = random({20, 64}, 4).requires_grad_();
      const torch::Tensor y = linear_4bit(x, w, {}, torch::kFloat32, LowRank{a, b});
      std::vector<int64_t> want = shape;
      want.back() = 20;
      CHECK(y.sizes() == torch::IntArrayRef(want));
      y.sum().backward();
      linear_dense(x, matrix).sum().backward();
      CHECK(x.grad().sizes() == x.sizes());
      for (const torch::Tensor& leaf : {a, b, matrix}) {
        CHECK(torch::equal(leaf.grad(), torch::zeros_like(leaf)));
      }
    }
  }

  TEST_CASE("what is not finite in a row of x or of its gradient reaches that row and no other") {
    const QuantizedTensor w = quantize_4bit(random({33, 96}, 1)).packed();
    const torch::Tensor matrix = random({33, 96}, 2);
    const torch::Tensor a = random({7, 96}, 3), b = random({33, 7}, 4);
    test::for_each_isa([&](const std::string&) {
      for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
        for (const torch::Dtype compute : kTypes) {
          for (const int64_t rows : {1, 4, 30}) {
            INFO(bad, " ", compute, " rows ", rows);
            const int64_t row = rows / 2;
            torch::Tensor spoilt = random({rows, 96}, 5);
            torch::Tensor dy = random({rows, 33}, 6);
            spoilt[row][41] = bad;
            dy[row][32] = bad;
            const auto reaches_one_row = [&](const torch::Tensor& y) {
              CHECK_FALSE(finite(y[row]));
              CHECK(finite(y.slice(0, 0, row)));
              CHECK(finite(y.slice(0, row + 1)));
            };
            const torch::Tensor x = random({rows, 96}, 7).requires_grad_();
            const torch::Tensor plain_x = x.detach().clone().requires_grad_();
            const torch::Tensor dense_x = x.detach().to(compute).requires_grad_();
            reaches_one_row(linear_4bit(spoilt, w, {}, compute));
            reaches_one_row(linear_4bit(spoilt, w, {}, compute, LowRank{a, b}));
            reaches_one_row(linear_dense(spoilt.to(compute), matrix.to(compute)));
            linear_4bit(plain_x, w, {}, compute).backward(dy);
            linear_4bit(x, w, {}, compute, LowRank{a, b}).backward(dy);
            linear_dense(dense_x, matrix.to(compute)).backward(dy.to(compute));
            for (const torch::Tensor& leaf : {x, plain_x, dense_x}) reaches_one_row(leaf.grad());
            // A's gradient has the column that read it, and no other.
            const torch::Tensor leaf = a.clone().requires_grad_();
            linear_4bit(spoilt, w, {}, compute, LowRank{leaf, b}).sum().backward();
            CHECK_FALSE(leaf.grad().select(1, 41).isfinite().any().item<bool>());
            CHECK(finite(leaf.grad().slice(1, 0, 41)));
            CHECK(finite(leaf.grad().slice(1, 42)));
          }
        }
      }
    });
  }

  TEST_CASE("weights beyond their dtype are infinite, as dequantizing says, in every product") {
    test::for_each_isa([](const std::string&) {
      for (const torch::Dtype dtype : {torch::kBFloat16, torch::kFloat16}) {
        QuantizedTensor::Parts parts = quantize_4bit(random({17, 64}, 1, dtype)).parts();
        parts.absmax = parts.absmax.clone();
        parts.absmax[5] = 3.4028e38f;  // of row 5; times 1 it is beyond both
        parts.codes[5 * 32] = 0xff;    // the code of 1, twice
        const QuantizedTensor w = QuantizedTensor::from_parts(parts).packed();
        REQUIRE(w.is_packed());
        const torch::Tensor dense = dequantize_4bit(w, torch::kFloat32);
        REQUIRE_FALSE(finite(dense[5]));
        for (const torch::Dtype compute : {torch::kFloat32, torch::kBFloat16}) {
          const torch::Tensor y = linear_4bit(torch::ones({6, 64}), w, {}, compute);
          CHECK_FALSE(y.select(1, 5).isfinite().any().item<bool>());
          CHECK(finite(y.slice(1, 0, 5)));
          CHECK(finite(y.slice(1, 6)));
        }
      }
    });
  }
}
