// permutation.hpp against numpy and torch.
#include <lorapp/data/permutation.hpp>

#include "data_support.hpp"

#include <ATen/ATen.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <set>

using namespace lorapp;
using data_test::goldens;

namespace {

int64_t weighted_sum(const std::vector<int64_t>& order) {
  int64_t sum = 0;
  for (std::size_t i = 0; i < order.size(); ++i) sum += order[i] * static_cast<int64_t>(i);
  return sum;
}

void check_large(const std::vector<int64_t>& order, const nlohmann::json& want) {
  CHECK(std::vector<int64_t>(order.begin(), order.begin() + 8) ==
        want["first"].get<std::vector<int64_t>>());
  CHECK(std::vector<int64_t>(order.end() - 4, order.end()) ==
        want["last"].get<std::vector<int64_t>>());
  CHECK(weighted_sum(order) == want["weighted_sum"].get<int64_t>());
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("permutation: numpy_permutation equals numpy.random.default_rng(seed).permutation(n)") {
    for (const auto& golden : goldens()["numpy_permutation"]) {
      const auto n = golden["n"].get<int64_t>();
      const auto seed = golden["seed"].get<uint64_t>();
      CAPTURE(n);
      CAPTURE(seed);
      CHECK(numpy_permutation(n, seed) == golden["order"].get<std::vector<int64_t>>());
    }
    check_large(numpy_permutation(15015, 42), goldens()["numpy_15015_seed_42"]);
  }

  TEST_CASE("permutation: n = 10, seed 42 is the order that datasets documents") {
    CHECK(numpy_permutation(10, 42) == std::vector<int64_t>{5, 6, 0, 7, 3, 2, 4, 9, 1, 8});
  }

  TEST_CASE("permutation: integers of an interval equal numpy's on both sides of 2^32") {
    for (const auto& golden : goldens()["numpy_intervals"]) {
      const uint64_t last = std::stoull(golden["last"].get<std::string>());
      CAPTURE(last);
      lorapp::detail::Pcg64 random(golden["seed"].get<uint64_t>());
      for (const auto& draw : golden["draws"])
        CHECK(random.interval(last) == std::stoull(draw.get<std::string>()));
    }
  }

  TEST_CASE("permutation: torch_randperm equals torch.randperm with a seeded generator") {
    for (const auto& golden : goldens()["torch_randperm"]) {
      const auto n = golden["n"].get<int64_t>();
      CAPTURE(n);
      CHECK(torch_randperm(n, golden["seed"].get<uint64_t>()) ==
            golden["order"].get<std::vector<int64_t>>());
    }
    check_large(torch_randperm(15015, 42), goldens()["torch_15015_seed_42"]);
  }

  TEST_CASE("permutation: torch_randperm leaves the global generator where it was") {
    at::manual_seed(5);
    const at::Tensor expected = at::rand({4});
    at::manual_seed(5);
    (void)torch_randperm(1000, 9);
    CHECK(at::equal(at::rand({4}), expected));
  }

  TEST_CASE("permutation: every index occurs once, and a negative n is an error") {
    for (const int64_t n : {1, 2, 3, 255, 4096}) {
      for (const auto& order : {numpy_permutation(n, 3), torch_randperm(n, 3)}) {
        const std::set<int64_t> seen(order.begin(), order.end());
        CHECK(seen.size() == static_cast<std::size_t>(n));
        CHECK(*seen.begin() == 0);
        CHECK(*seen.rbegin() == n - 1);
      }
    }
    CHECK_THROWS_AS(numpy_permutation(-1, 0), Error);
    CHECK_THROWS_AS(torch_randperm(-1, 0), Error);
  }
}
