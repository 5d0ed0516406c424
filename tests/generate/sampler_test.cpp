#include <lorapp/generate/sampler.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using lorapp::Error;
using lorapp::GenerationConfig;
using lorapp::Sampler;

namespace {

/// The tokens a filter left.
std::vector<int64_t> kept(const torch::Tensor& scores) {
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < scores.size(0); ++i) {
    if (std::isfinite(scores[i].item<float>())) tokens.push_back(i);
  }
  return tokens;
}

torch::Tensor scores_of(std::vector<float> values) { return torch::tensor(values); }

/// Logits whose softmax is `probabilities`.
torch::Tensor logits_of(std::vector<float> probabilities) {
  return torch::tensor(probabilities).log();
}

using Tokens = std::vector<int64_t>;

}  // namespace

TEST_SUITE("generate") {
  TEST_CASE("sampler: greedy takes the lowest id of equal best scores") {
    CHECK(lorapp::greedy_token(scores_of({1, 3, 2, 3})) == 1);
    CHECK(lorapp::greedy_token(scores_of({-5})) == 0);
    torch::Tensor wide = torch::zeros({32003});
    wide[31007] = 1;
    wide[32002] = 1;
    CHECK(lorapp::greedy_token(wide) == 31007);
  }

  TEST_CASE("sampler: the repetition penalty moves every seen token down once, whatever its sign") {
    const Tokens seen = {0, 1, 0, 3};
    const torch::Tensor result =
        lorapp::penalize_repetition(scores_of({2, -2, 4, 0, 1}), seen, 2.0);
    CHECK(torch::equal(result, scores_of({1, -4, 4, 0, 1})));
  }

  TEST_CASE("sampler: top_k keeps k tokens and the ties of the k-th") {
    const torch::Tensor scores = scores_of({1, 5, 3, 3, 2});
    CHECK(kept(lorapp::keep_top_k(scores, 1)) == Tokens{1});
    CHECK(kept(lorapp::keep_top_k(scores, 2)) == Tokens{1, 2, 3});
    CHECK(kept(lorapp::keep_top_k(scores, 0)).size() == 5);
    CHECK(kept(lorapp::keep_top_k(scores, 99)).size() == 5);
  }

  TEST_CASE("sampler: top_p keeps the smallest set of likeliest tokens that reaches p") {
    const torch::Tensor logits = logits_of({0.1f, 0.5f, 0.15f, 0.25f});
    CHECK(kept(lorapp::keep_top_p(logits, 0.4)) == Tokens{1});
    CHECK(kept(lorapp::keep_top_p(logits, 0.6)) == Tokens{1, 3});
    CHECK(kept(lorapp::keep_top_p(logits, 0.8)) == Tokens{1, 2, 3});
    CHECK(kept(lorapp::keep_top_p(logits, 0.95)).size() == 4);
    CHECK(kept(lorapp::keep_top_p(logits, 0.0)) == Tokens{1});
    CHECK(kept(lorapp::keep_top_p(logits, 1.0)).size() == 4);
  }

  TEST_CASE("sampler: min_p is relative to the likeliest token, and that one always stays") {
    const torch::Tensor logits = logits_of({0.1f, 0.5f, 0.15f, 0.25f});
    CHECK(kept(lorapp::keep_min_p(logits, 0.4)) == Tokens{1, 3});
    CHECK(kept(lorapp::keep_min_p(logits, 1.0)) == Tokens{1});
    CHECK(kept(lorapp::keep_min_p(logits, 0.0)).size() == 4);
  }

  TEST_CASE("sampler: the end tokens cannot come before min_new_tokens, then they can") {
    Sampler sampler({.min_new_tokens = 2}, {0, 3});
    const torch::Tensor logits = scores_of({9, 1, 2, 8});
    CHECK(sampler.next(logits, {}, 0) == 2);
    CHECK(sampler.next(logits, {}, 1) == 2);
    CHECK(sampler.next(logits, {}, 2) == 0);
    // An end token of another vocabulary is an error where it is used.
    for (const int64_t outside : {int64_t{4}, int64_t{-1}}) {
      CHECK_THROWS_AS(Sampler({.min_new_tokens = 2}, {0, outside}).next(logits, {}, 0), Error);
    }
  }

  TEST_CASE("sampler: two samplers of one seed draw the same tokens, another seed draws others") {
    const torch::Tensor logits = torch::linspace(0, 1, 101);
    const GenerationConfig config{.do_sample = true, .top_k = 0, .seed = 7};
    Sampler first(config, {});
    Sampler second(config, {});
    Sampler other({.do_sample = true, .top_k = 0, .seed = 8}, {});
    int equal_to_other = 0;
    for (int i = 0; i < 64; ++i) {
      const int64_t token = first.next(logits, {}, i);
      CHECK(token == second.next(logits, {}, i));
      equal_to_other += token == other.next(logits, {}, i);
    }
    CHECK(equal_to_other < 16);
  }

  TEST_CASE("sampler: drawing touches neither the global generator nor the given logits") {
    torch::manual_seed(1);
    const torch::Tensor expected = torch::rand({4});
    torch::manual_seed(1);
    const torch::Tensor logits = torch::zeros({32});
    const torch::Tensor before = logits.clone();
    Sampler sampler({.do_sample = true, .temperature = 0.5, .repetition_penalty = 2}, {1});
    const Tokens context = {1, 2, 3};
    for (int i = 0; i < 8; ++i) sampler.next(logits, context, i);
    CHECK(torch::equal(torch::rand({4}), expected));
    CHECK(torch::equal(logits, before));
  }

  TEST_CASE("sampler: the shares of drawn tokens are those of softmax(logits / temperature)") {
    const torch::Tensor logits = scores_of({0.0f, std::log(3.0f) * 0.5f});  // 1 : 3 at 0.5
    Sampler sampler({.do_sample = true, .temperature = 0.5, .seed = 3}, {});
    int ones = 0;
    constexpr int kDraws = 4000;
    for (int i = 0; i < kDraws; ++i) ones += sampler.next(logits, {}, i) == 1;
    CHECK(std::abs(ones / double(kDraws) - 0.75) < 0.03);
  }

  TEST_CASE("sampler: NaN and infinite logits are an error that counts them") {
    Sampler sampler({}, {});
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float inf = std::numeric_limits<float>::infinity();
    CHECK_THROWS_WITH_AS(sampler.next(scores_of({nan, 1, -inf}), {}, 4),
                         "[sampler] 2 of 3 logits of new token 5 are NaN or infinite, expected "
                         "finite numbers",
                         Error);
    CHECK_NOTHROW(sampler.next(scores_of({1, 2}), {}, 0));
  }

  TEST_CASE("sampler: bf16 logits are ranked in float32") {
    Sampler sampler({}, {});
    CHECK(sampler.next(scores_of({1, 2, 3}).to(torch::kBFloat16), {}, 0) == 2);
  }

  TEST_CASE("sampler: settings outside their range are refused before the first token") {
    CHECK_THROWS_AS(Sampler({.do_sample = true, .temperature = 0}, {}), Error);
  }
}
