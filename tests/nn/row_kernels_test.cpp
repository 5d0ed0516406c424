// Operations with row kernels against their rules of LibTorch's operations: values and gradients,
// in every type; what goes to the rules; second derivatives.
#include "nn/toy.hpp"
#include "support/for_each_isa.hpp"

#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>

#include <ATen/Parallel.h>

#include <utility>

using namespace lorapp;
using namespace lorapp::test;

namespace {

using Function = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

// The value and the gradients of Σ f(x)·w.
std::vector<torch::Tensor> value_and_gradients(const Function& f,
                                               const std::vector<torch::Tensor>& given) {
  std::vector<torch::Tensor> inputs;
  for (const torch::Tensor& x : given) inputs.push_back(x.detach().clone().requires_grad_());
  const torch::Tensor y = f(inputs);
  const torch::Tensor weights = random_tensor(y.sizes(), 99, y.scalar_type());
  std::vector<torch::Tensor> results = torch::autograd::grad({y}, inputs, {weights});
  results.push_back(y.detach());
  return results;
}

// f and the rule on the same inputs, in f32 and 16 bits.
void compare(const Function& f, const Function& rule, const std::vector<torch::Tensor>& inputs) {
  for_each_isa([&](const std::string&) {
    for (const auto& each :
         {std::pair{torch::kFloat32, 1e-6}, {torch::kBFloat16, 8e-3}, {torch::kHalf, 1e-3}}) {
      const auto& dtype = each.first;
      const auto& tolerance = each.second;
      INFO(c10::toString(dtype));
      std::vector<torch::Tensor> narrow;
      for (const torch::Tensor& x : inputs) narrow.push_back(x.to(dtype));
      const auto got = value_and_gradients(f, narrow);
      const auto composed = value_and_gradients(rule, narrow);
      for (std::size_t i = 0; i < got.size(); ++i) {
        CHECK((got[i].scalar_type() == dtype));
        CHECK(distance(got[i], composed[i]) < tolerance);
      }
    }
  });
}

// Angles that are no multiple of anything, in the dtype of x.
Rotation rotation_for(const torch::Tensor& x) {
  RotaryEmbedding rotary(x.size(2), 10000.0);
  return rotary.at(torch::arange(x.size(0)) * 3 + 1, x.scalar_type());
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("rms_norm: the kernel's value and gradients are the rule's") {
    // More rows than one block of the weight's gradient.
    for (const std::int64_t size : {7, 31, 64, 200}) {
      compare([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
              [](const auto& in) { return lorapp::detail::composed_rms_norm(in[0], in[1], 1e-5); },
              {random_tensor({3, 50, size}, 1, torch::kFloat64) * 3,
               random_tensor({size}, 2, torch::kFloat64) + 1});
    }
  }

  TEST_CASE("rms_norm: gradients come for what needs them alone, the weight's for any threads") {
    const torch::Tensor x = random_tensor({300, 64}, 1), weight = random_tensor({64}, 2);
    const torch::Tensor dy = random_tensor({300, 64}, 3);
    const auto gradient_of_weight = [&] {
      const torch::Tensor trained = weight.clone().requires_grad_();
      rms_norm(x, trained, 1e-5).backward(dy);
      return trained.grad();
    };
    const int threads = at::get_num_threads();
    const torch::Tensor several = gradient_of_weight();
    at::set_num_threads(1);
    CHECK(torch::equal(gradient_of_weight(), several));
    at::set_num_threads(threads);
    const torch::Tensor leaf = x.clone().requires_grad_();
    rms_norm(leaf, weight, 1e-5).backward(dy);
    CHECK(leaf.grad().defined());
    CHECK_FALSE(weight.grad().defined());
    CHECK_FALSE(rms_norm(x, weight, 1e-5).requires_grad());
  }

  TEST_CASE("rotate: the kernel's value and gradient are the rule's, bit by bit") {
    for_each_isa([](const std::string&) {
      for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
        for (const std::int64_t size : {2, 10, 64, 128}) {
          INFO(c10::toString(dtype), " ", size);
          const torch::Tensor x = random_tensor({9, 3, size}, 5, dtype);
          const Rotation rotation = rotation_for(x);
          const auto got =
              value_and_gradients([&](const auto& in) { return rotate(in[0], rotation); }, {x});
          const auto want = value_and_gradients(
              [&](const auto& in) { return lorapp::detail::composed_rotate(in[0], rotation); },
              {x});
          CHECK(torch::equal(got[0], want[0]));
          CHECK(torch::equal(got[1], want[1]));
        }
      }
    });
  }

  TEST_CASE("rotate: heads may be strided, and gradients transposed") {
    const torch::Tensor wide = random_tensor({9, 5, 24}, 6);
    const torch::Tensor view = wide.slice(1, 1, 4).slice(2, 2, 18);
    const Rotation rotation = rotation_for(view);
    CHECK(torch::equal(rotate(view, rotation), lorapp::detail::composed_rotate(view, rotation)));
    const torch::Tensor transposed = random_tensor({16, 3, 9}, 7).permute({2, 1, 0});
    const auto gradient = [&](auto f) {
      const torch::Tensor x = view.clone().requires_grad_();
      return torch::autograd::grad({f(x, rotation)}, {x}, {transposed})[0];
    };
    CHECK(torch::equal(gradient(rotate), gradient(lorapp::detail::composed_rotate)));
  }

  TEST_CASE("rotate_into: rows of a cache get what rotate gives, by the kernel and without") {
    for (const auto dtype : {torch::kFloat32, torch::kBFloat16, torch::kFloat64}) {
      const torch::Tensor x = random_tensor({3, 2, 10}, 8, dtype);
      const Rotation rotation = rotation_for(x);
      torch::Tensor cache = torch::full({2, 8, 10}, 7.0, dtype);
      rotate_into(cache.slice(1, 4, 7).transpose(0, 1), x, rotation);
      CHECK(torch::equal(cache.slice(1, 4, 7).transpose(0, 1), rotate(x, rotation)));
      CHECK(cache.slice(1, 0, 4).eq(7).all().item<bool>());
      CHECK(cache.slice(1, 7).eq(7).all().item<bool>());
    }
    const torch::Tensor x = torch::zeros({1, 2, 10});
    const Rotation rotation = rotation_for(x);
    CHECK(contains(error_of([&] {
                     rotate_into(torch::zeros({1, 3, 10}), x, rotation);
                   }),
                   "the result goes into [1, 3, 10] of Float; expected [1, 2, 10] of Float"));
  }

  TEST_CASE("swiglu: the kernel's value and gradients are the rule's") {
    for (const std::int64_t size : {1, 31, 64, 1000}) {
      compare([](const auto& in) { return swiglu(in[0], in[1]); },
              [](const auto& in) { return lorapp::detail::composed_swiglu(in[0], in[1]); },
              {random_tensor({40, size}, 8, torch::kFloat64) * 3,
               random_tensor({40, size}, 9, torch::kFloat64)});
    }
  }

  TEST_CASE("a gradient is written over the one that came in only where nothing else holds it") {
    const torch::Tensor weight = random_tensor({32}, 15), factor = random_tensor({4, 2, 32}, 16);
    const torch::Tensor other = random_tensor({4, 2, 32}, 17);
    const Rotation rotation = rotation_for(factor);
    const std::vector<std::pair<Function, Function>> cases = {
        {[&](const auto& in) { return rms_norm(in[0], weight, 1e-5); },
         [&](const auto& in) { return lorapp::detail::composed_rms_norm(in[0], weight, 1e-5); }},
        {[&](const auto& in) { return rotate(in[0], rotation); },
         [&](const auto& in) { return lorapp::detail::composed_rotate(in[0], rotation); }},
        {[&](const auto& in) { return swiglu(in[0], other); },
         [&](const auto& in) { return lorapp::detail::composed_swiglu(in[0], other); }}};
    for (const auto& [f, rule] : cases) {
      const auto gradient = [&](const Function& g) {
        const torch::Tensor x = random_tensor({4, 2, 32}, 18).requires_grad_();
        (g({x}) * factor).sum().backward();  // the product's gradient is nobody else's
        return x.grad();
      };
      CHECK(distance(gradient(f), gradient(rule)) < 1e-6);
      const torch::Tensor x = random_tensor({4, 2, 32}, 18).requires_grad_();
      const torch::Tensor dy = factor.clone();
      const torch::Tensor y = f({x});
      y.backward(dy, /*keep_graph=*/true);
      y.backward(dy);
      CHECK(torch::equal(dy, factor));
      CHECK(distance(x.grad(), gradient(rule) * 2) < 1e-6);
    }
  }

  TEST_CASE("strided operands, mixed types and no elements go to the rules") {
    const torch::Tensor x = random_tensor({6, 8}, 10), weight = random_tensor({6}, 11);
    CHECK(torch::equal(rms_norm(x.t(), weight, 1e-5),
                       lorapp::detail::composed_rms_norm(x.t(), weight, 1e-5)));
    const torch::Tensor half = x.to(torch::kBFloat16);
    CHECK((rms_norm(half, random_tensor({8}, 12), 1e-5).scalar_type() == torch::kFloat32));
    CHECK(torch::equal(swiglu(x.t(), x.t()), lorapp::detail::composed_swiglu(x.t(), x.t())));
    CHECK(torch::equal(swiglu(x.slice(1, 0, 4), x.slice(1, 4)),
                       lorapp::detail::composed_swiglu(x.slice(1, 0, 4), x.slice(1, 4))));
    CHECK((swiglu(half, x).scalar_type() == torch::kFloat32));
    CHECK(swiglu(x.slice(0, 0, 0), x.slice(0, 0, 0)).numel() == 0);
    CHECK(rms_norm(x.slice(0, 0, 0), random_tensor({8}, 12), 1e-5).numel() == 0);
  }

  TEST_CASE("second derivatives through a kernel are refused by name") {
    const torch::Tensor x = random_tensor({4, 2, 8}, 13).requires_grad_();
    const torch::Tensor weight = random_tensor({8}, 14);
    const Rotation rotation = rotation_for(x);
    const auto message = [&](const torch::Tensor& y) {
      return error_of([&] {
        torch::autograd::grad({y.sum()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true);
      });
    };
    for (const auto& [name, y] :
         {std::pair<const char*, torch::Tensor>{"rms_norm", rms_norm(x, weight, 1e-5)},
          {"rotate", rotate(x, rotation)},
          {"swiglu", swiglu(x, x)}}) {
      CHECK(contains(message(y), name));
      CHECK(contains(message(y), "second derivatives"));
    }
  }
}
