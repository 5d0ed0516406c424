// The whole quickstart with its control, on every held-out question. Minutes, so labelled slow.
#include "quickstart/tuned_score.hpp"

#include <doctest/doctest.h>

using namespace quickstart;
using lorapp::test::tuned_score;

namespace {

constexpr std::uint64_t kSeed = 1;

}  // namespace

TEST_SUITE("quickstart_tuning") {
  TEST_CASE("tuned on one half of the world, the model answers 80 % of the other half exactly") {
    const Split split = split_world(kSeed);
    const auto rows = tuning_questions(split, kSeed);
    const auto held_out = held_out_questions(split, kSeed);
    REQUIRE(overlap(held_out, rows) == 0);
    REQUIRE(held_out.size() >= 200);
    const Score score = tuned_score(default_base(), rows, held_out, kSeed);
    CHECK(score.exact_percent() >= 80);
    CHECK(score.prefix_percent() >= score.exact_percent());
  }

  TEST_CASE("tuned on shuffled answers, it answers at most 20 % exactly") {
    const Split split = split_world(kSeed);
    const auto rows = with_shuffled_answers(tuning_questions(split, kSeed), kSeed);
    const auto held_out = held_out_questions(split, kSeed);
    CHECK(tuned_score(default_base(), rows, held_out, kSeed).exact_percent() <= 20);
  }
}
