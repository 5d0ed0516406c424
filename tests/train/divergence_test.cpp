#include "support/error_of.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/train/divergence.hpp>
#include <lorapp/train/evaluate.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <algorithm>
#include <cmath>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE_BEGIN("train");

TEST_CASE("compare_models: sums the KL of each scored token, whatever the batches and chunks") {
  auto reference = tiny_model(7);
  auto other = tiny_model(8);
  const TokenizedDataset data = tiny_dataset(5);
  // Written out token by token.
  double sum = 0;
  double largest = 0;
  double same = 0;
  std::int64_t tokens = 0;
  {
    const torch::NoGradGuard no_grad;
    for (std::int64_t i = 0; i < data.size(); ++i) {
      const Example& example = data.get(i);
      const PackedInput input = PackedInput::single(example.ids);
      const torch::Tensor p = reference->forward(input).to(torch::kFloat64).softmax(-1);
      const torch::Tensor q = other->forward(input).to(torch::kFloat64).softmax(-1);
      for (std::size_t t = 0; t + 1 < example.ids.size(); ++t) {
        if (example.labels[t + 1] == kIgnoreLabel) continue;
        const auto row = static_cast<std::int64_t>(t);
        const double kl = (p[row] * (p[row] / q[row]).log()).sum().item<double>();
        sum += kl;
        largest = std::max(largest, kl);
        same +=
            p[row].argmax().item<std::int64_t>() == q[row].argmax().item<std::int64_t>() ? 1 : 0;
        ++tokens;
      }
    }
  }
  for (const std::int64_t batch_size : {1, 2, 5}) {
    for (const std::int64_t chunk : {0, 1, 3}) {
      const Divergence got = compare_models(*reference, *other, data, batch_size, chunk);
      CHECK(got.mean_kl == doctest::Approx(sum / static_cast<double>(tokens)).epsilon(1e-6));
      CHECK(got.max_kl == doctest::Approx(largest).epsilon(1e-6));
      CHECK(got.same_top == doctest::Approx(same / static_cast<double>(tokens)));
      CHECK(got.reference.tokens == tokens);
      CHECK(got.other.examples == 5);
      CHECK(got.reference.loss ==
            doctest::Approx(evaluate_loss(*reference, data).loss).epsilon(1e-6));
      CHECK(got.other.loss == doctest::Approx(evaluate_loss(*other, data).loss).epsilon(1e-6));
    }
  }
  CHECK(std::exp(evaluate_loss(*other, data).loss) ==
        doctest::Approx(compare_models(*reference, *other, data).other.perplexity()).epsilon(1e-6));
}

TEST_CASE("compare_models: a model has no divergence from itself, and keeps its mode") {
  auto model = tiny_model();
  model->train();
  const Divergence got = compare_models(*model, *model, tiny_dataset(3));
  CHECK(got.mean_kl == 0);
  CHECK(got.max_kl == 0);
  CHECK(got.same_top == 1);
  CHECK(model->is_training());
}

TEST_CASE("compare_models: other vocabularies, no scored token and broken weights are errors") {
  auto model = tiny_model();
  ModelConfig config = tiny_config();
  config.vocab_size = 62;
  auto larger = tiny_model(7, config);
  CHECK(contains(error_of([&] { compare_models(*model, *larger, tiny_dataset(2)); }),
                 "61 and 62 tokens"));
  const TokenizedDataset unscored({Example{{1, 2}, {kIgnoreLabel, kIgnoreLabel}}});
  CHECK(contains(error_of([&] { compare_models(*model, *model, unscored); }), "is scored"));
  auto broken = tiny_model();
  {
    const torch::NoGradGuard no_grad;
    broken->parameters().front().fill_(NAN);
  }
  CHECK(contains(error_of([&] { compare_models(*model, *broken, tiny_dataset(2)); }),
                 "examples 0 to 0 is not finite"));
}

TEST_SUITE_END();
