// make_base from another seed: other weights, another text, another vocabulary. A quarter of an
// hour.
#include "quickstart/tuned_score.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <string>

using namespace quickstart;
using lorapp::test::tuned_score;

TEST_SUITE("quickstart_reseeded") {
  TEST_CASE(
      "a base made from another seed, once tuned, scores within 5 points of the embedded one") {
    const lorapp::test::TemporaryFolder folder;
    const std::string command = "'" LORAPP_MAKE_BASE "' --seed 2 --output-dir '" +
                                (folder / "base").string() + "' 2>/dev/null";
    REQUIRE(std::system(command.c_str()) == 0);
    constexpr std::uint64_t kSeed = 1;
    const Split split = split_world(kSeed);
    const auto rows = tuning_questions(split, kSeed);
    const auto held_out = held_out_questions(split, kSeed);
    const double embedded = tuned_score(default_base(), rows, held_out, kSeed).exact_percent();
    const double reseeded = tuned_score(folder / "base", rows, held_out, kSeed).exact_percent();
    MESSAGE("exact match: embedded base " << embedded << " %, base of seed 2 " << reseeded << " %");
    CHECK(std::abs(embedded - reseeded) <= 5);
  }
}
