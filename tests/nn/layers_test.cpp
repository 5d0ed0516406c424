#include "nn/toy.hpp"

#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>

#include <cmath>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("nn") {
  TEST_CASE("rms_norm: divides by the root mean square of the row and multiplies by the weight") {
    const torch::Tensor x = torch::tensor({{3.0, 4.0}, {0.0, 0.0}}, torch::kFloat32);
    const torch::Tensor y = rms_norm(x, torch::tensor({2.0f, 10.0f}), 0.0);
    CHECK(y[0][0].item<double>() == doctest::Approx(2 * 3 / std::sqrt(12.5)));
    CHECK(y[0][1].item<double>() == doctest::Approx(10 * 4 / std::sqrt(12.5)));
    // ε keeps a row of zeros finite.
    CHECK(rms_norm(x, torch::ones(2), 1e-6)[1].abs().max().item<double>() == 0.0);
  }

  TEST_CASE("rms_norm: a bfloat16 row is normalized in float32 and rounded before the weight") {
    const torch::Tensor x = random_tensor({5, 7}, 1, torch::kBFloat16) * 300;
    const torch::Tensor weight = random_tensor({7}, 2, torch::kBFloat16);
    const torch::Tensor wide = x.to(torch::kFloat32);
    const torch::Tensor rounded =
        (wide * at::rsqrt(wide.pow(2).mean(-1, true) + 1e-5)).to(torch::kBFloat16);
    const torch::Tensor y = rms_norm(x, weight, 1e-5);
    CHECK((y.scalar_type() == torch::kBFloat16));
    CHECK(torch::equal(y, weight * rounded));
  }

  TEST_CASE("rms_norm: gradients in float64 are those of central differences") {
    CHECK(gradient_error([](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
                         {random_tensor({3, 5}, 3, torch::kFloat64),
                          random_tensor({5}, 4, torch::kFloat64)}) < 1e-7);
  }

  TEST_CASE("rotary: dimension i and i + d/2 turn together by position · theta^(-2i/d)") {
    RotaryEmbedding rotary(6, 100.0);
    const std::vector<std::int64_t> positions = {0, 1, 7, 1000};
    const Rotation rotation = rotary.at(torch::tensor(positions), torch::kFloat64);
    const torch::Tensor x = random_tensor({4, 2, 6}, 5, torch::kFloat64);
    const torch::Tensor y = rotate(x, rotation);
    CHECK(torch::equal(y[0], x[0]));
    for (std::int64_t t = 0; t < 4; ++t) {
      for (std::int64_t i = 0; i < 3; ++i) {
        const double angle = static_cast<double>(positions[t]) * std::pow(100.0, -2.0 * i / 6.0);
        const double a = x[t][1][i].item<double>();
        const double b = x[t][1][i + 3].item<double>();
        // The angle is float32: at position 1000 its last bit is worth 6e-5.
        CHECK(y[t][1][i].item<double>() ==
              doctest::Approx(a * std::cos(angle) - b * std::sin(angle)).epsilon(1e-4));
        CHECK(y[t][1][i + 3].item<double>() ==
              doctest::Approx(b * std::cos(angle) + a * std::sin(angle)).epsilon(1e-4));
      }
    }
  }

  TEST_CASE("rotary: a product of query and key depends on their distance alone") {
    RotaryEmbedding rotary(8, 10000.0);
    const torch::Tensor q = random_tensor({1, 1, 8}, 6, torch::kFloat64);
    const torch::Tensor k = random_tensor({1, 1, 8}, 7, torch::kFloat64);
    const auto product = [&](std::int64_t i, std::int64_t j) {
      return (rotate(q, rotary.at(torch::tensor({i}), torch::kFloat64)) *
              rotate(k, rotary.at(torch::tensor({j}), torch::kFloat64)))
          .sum()
          .item<double>();
    };
    CHECK(product(5, 2) == doctest::Approx(product(13, 10)).epsilon(1e-6));
    CHECK(product(5, 2) != doctest::Approx(product(13, 11)).epsilon(1e-3));
  }

  TEST_CASE("rotary: gradients in float64 are those of central differences") {
    RotaryEmbedding rotary(6, 50.0);
    const Rotation rotation = rotary.at(torch::arange(4), torch::kFloat64);
    CHECK(gradient_error([&](const auto& in) { return rotate(in[0], rotation); },
                         {random_tensor({4, 2, 6}, 8, torch::kFloat64)}) < 1e-7);
  }

  TEST_CASE("mlp: is down(silu(gate(x)) · up(x))") {
    ModelConfig config = toy_config();
    Mlp mlp(config);
    const torch::Tensor gate = random_tensor({53, 36}, 9, torch::kFloat64) * 0.2;
    const torch::Tensor up = random_tensor({53, 36}, 10, torch::kFloat64) * 0.2;
    const torch::Tensor down = random_tensor({36, 53}, 11, torch::kFloat64) * 0.2;
    mlp->gate_proj->set_dense(gate);
    mlp->up_proj->set_dense(up);
    mlp->down_proj->set_dense(down);
    const torch::Tensor x = random_tensor({5, 36}, 12, torch::kFloat64);
    const torch::Tensor g = x.mm(gate.t());
    const torch::Tensor want = (g / (1 + (-g).exp()) * x.mm(up.t())).mm(down.t());
    CHECK(distance(mlp(x), want) < 1e-12);
  }

  TEST_CASE("embedding and norm refuse weights of another shape") {
    Embedding embedding(5, 3);
    CHECK(contains(error_of([&] { embedding->set_weight(torch::zeros({3, 5})); }), "[5, 3]"));
    RMSNorm norm(4, 1e-5);
    CHECK(contains(error_of([&] { norm->set_weight(torch::zeros({4, 1})); }), "[4]"));
  }
}
