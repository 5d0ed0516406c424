#include "support/for_each_isa.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/linear.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/peft/lora.hpp>

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>

using namespace lorapp;

namespace {

torch::Tensor random_input(std::int64_t rows, std::int64_t columns) {
  return torch::randn({rows, columns}, at::detail::createCPUGenerator(3));
}

LoraAdapter::Options options(LoraInit init = LoraInit::random) {
  return {.in_features = 37, .out_features = 23, .r = 5, .scale = 1.5, .init = init, .seed = 9};
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("dropout: p of the elements are zero, the rest are divided by 1 - p, in every type") {
  for (const auto dtype : {torch::kFloat32, torch::kFloat64, torch::kBFloat16}) {
    const torch::Tensor x = torch::ones({301, 333}, dtype);
    const torch::Tensor y = seeded_dropout(x, 0.25, 1);
    const double zeros = y.eq(0).to(torch::kFloat64).mean().item<double>();
    CHECK(std::abs(zeros - 0.25) < 0.006);  // 4 standard deviations
    const torch::Tensor kept = y.masked_select(y.ne(0));
    CHECK(kept.eq(torch::full({}, 1 / 0.75, dtype)).all().item<bool>());
  }
}

TEST_CASE("dropout: the mask depends on the seed and the element only, not on the threads") {
  const torch::Tensor x = torch::ones({7, 100'003});
  const int threads = at::get_num_threads();
  const torch::Tensor first = seeded_dropout(x, 0.5, 42);
  at::set_num_threads(1);
  CHECK(first.equal(seeded_dropout(x, 0.5, 42)));
  at::set_num_threads(threads);
  CHECK(first[0].equal(seeded_dropout(x[0], 0.5, 42)));
  CHECK_FALSE(first.equal(seeded_dropout(x, 0.5, 43)));
  CHECK(seeded_dropout(x, 0, 1).is_same(x));
  CHECK_THROWS_AS(seeded_dropout(x, 1, 1), Error);
}

TEST_CASE("dropout: every type drops the same elements on every instruction set, by derive_seed") {
  for (const std::int64_t size : {1, 2, 31, 100, 40'001}) {
    std::vector<float> kept(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) {
      const std::uint64_t bits = derive_seed(7, static_cast<std::uint64_t>(i / 2));
      const auto word = static_cast<std::uint32_t>(i % 2 == 0 ? bits : bits >> 32);
      kept[static_cast<std::size_t>(i)] = word < drop_threshold(0.3) ? 0.0f : 1.0f;
    }
    const torch::Tensor mask = torch::tensor(kept);
    test::for_each_isa([&](const std::string&) {
      for (const auto dtype : {torch::kFloat32, torch::kFloat64, torch::kBFloat16, torch::kHalf}) {
        INFO(c10::toString(dtype), " ", size);
        const torch::Tensor x = torch::arange(1, size + 1).to(dtype);
        const torch::Tensor want = x * torch::full({}, 1 / 0.7, dtype) * mask.to(dtype);
        CHECK(torch::equal(seeded_dropout(x, 0.3, 7), want));
      }
    });
  }
}

TEST_CASE("dropout: masks of neighbouring seeds are uncorrelated") {
  const torch::Tensor x = torch::ones({200'000}, torch::kFloat64);
  const torch::Tensor a = seeded_dropout(x, 0.5, derive_seed(1, 0)) - 1;
  const torch::Tensor b = seeded_dropout(x, 0.5, derive_seed(1, 1)) - 1;
  CHECK(std::abs((a * b).mean().item<double>()) < 0.01);
  CHECK(std::abs((a.slice(0, 0, -1) * a.slice(0, 1)).mean().item<double>()) < 0.01);
}

TEST_CASE("dropout: the gradient passes where the value does, scaled alike") {
  torch::Tensor x = random_input(5, 9).requires_grad_();
  const torch::Tensor y = seeded_dropout(x, 0.4, 5);
  y.sum().backward();
  CHECK(torch::allclose(x.grad() * x.detach(), y.detach()));
}

TEST_CASE("lora: a new adapter adds nothing; A is uniform in ±1/√in, or normal with 1/r") {
  LoraAdapter::Options wide = options(LoraInit::kaiming);
  wide.in_features = 400;
  wide.r = 50;
  LoraAdapter adapter(wide);
  CHECK(adapter.delta(random_input(3, 400)).eq(0).all().item<bool>());
  CHECK(adapter.a().abs().max().item<double>() <= 1 / 20.0);
  CHECK(adapter.a().std().item<double>() == doctest::Approx(1 / 20.0 / std::sqrt(3)).epsilon(0.03));
  wide.init = LoraInit::gaussian;
  CHECK(LoraAdapter(wide).a().std().item<double>() == doctest::Approx(1 / 50.0).epsilon(0.03));
}

TEST_CASE("lora: initial weights are a function of seed and index and leave the global generator") {
  torch::manual_seed(1);
  const torch::Tensor before = torch::rand({1});
  torch::manual_seed(1);
  LoraAdapter::Options other = options();
  other.index = 1;
  const LoraAdapter a(options()), b(options()), c(other);
  CHECK(before.equal(torch::rand({1})));
  CHECK(a.a().equal(b.a()));
  CHECK_FALSE(a.a().equal(c.a()));
  CHECK_THROWS_AS(LoraAdapter({.in_features = 2, .out_features = 2, .r = 0}), Error);
}

TEST_CASE("lora: delta is scale · B A x and its gradients are those of that product") {
  LoraAdapter adapter(options());
  adapter.eval();
  torch::Tensor x = random_input(6, 37).requires_grad_();
  const torch::Tensor g = random_input(6, 23);
  const torch::Tensor y = adapter.delta(x);
  CHECK(torch::allclose(y, at::linear(x, adapter.delta_weight()), 1e-5, 1e-6));
  y.backward(g);
  const torch::Tensor h = at::linear(x.detach(), adapter.a().detach());
  CHECK(torch::allclose(adapter.b().grad(), 1.5 * g.t().mm(h), 1e-4, 1e-5));
  const torch::Tensor gh = 1.5 * g.mm(adapter.b().detach());
  CHECK(torch::allclose(adapter.a().grad(), gh.t().mm(x.detach()), 1e-4, 1e-5));
  CHECK(torch::allclose(x.grad(), gh.mm(adapter.a().detach()), 1e-4, 1e-5));
}

TEST_CASE("lora: half-precision input is widened, the parameters stay float32") {
  LoraAdapter adapter(options());
  adapter.eval();
  const torch::Tensor x = random_input(4, 37).to(torch::kBFloat16);
  CHECK(adapter.delta(x).equal(adapter.delta(x.to(torch::kFloat32))));
  CHECK((adapter.a().scalar_type() == torch::kFloat32));
}

TEST_CASE("lora: dropout acts in train mode only and follows the seed") {
  LoraAdapter::Options with_dropout = options();
  with_dropout.dropout = 0.5;
  LoraAdapter adapter(with_dropout);
  const torch::Tensor x = random_input(4, 37);
  adapter.train();
  adapter.seed_dropout(1);
  const torch::Tensor first = adapter.delta(x);
  CHECK(first.equal(adapter.delta(x)));
  adapter.seed_dropout(2);
  CHECK_FALSE(first.equal(adapter.delta(x)));
  adapter.eval();
  CHECK(torch::allclose(adapter.delta(x), at::linear(x, adapter.delta_weight()), 1e-5, 1e-6));
}

TEST_SUITE_END();
