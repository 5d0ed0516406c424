#include "nn/toy.hpp"

#include <lorapp/nn/attention.hpp>

#include <cmath>
#include <limits>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// The definition, one query and head at a time in float64. q [S, heads, d], k, v [kv_heads, L, d].
torch::Tensor attend_by_definition(const torch::Tensor& q,
                                   const torch::Tensor& k,
                                   const torch::Tensor& v,
                                   std::int64_t window) {
  const std::int64_t count = q.size(0), heads = q.size(1), size = q.size(2);
  const std::int64_t group = heads / k.size(0), past = k.size(1) - count;
  torch::Tensor out = torch::zeros({count, heads, size}, torch::kFloat64);
  for (std::int64_t s = 0; s < count; ++s) {
    const std::int64_t i = past + s;
    const std::int64_t first = window > 0 ? std::max<std::int64_t>(0, i - window + 1) : 0;
    for (std::int64_t h = 0; h < heads; ++h) {
      const torch::Tensor keys = k[h / group].slice(0, first, i + 1).to(torch::kFloat64);
      const torch::Tensor scores =
          keys.mv(q[s][h].to(torch::kFloat64)) / std::sqrt(static_cast<double>(size));
      const torch::Tensor weights = (scores - scores.max()).exp();
      out[s][h] = (weights / weights.sum())
                      .unsqueeze(0)
                      .mm(v[h / group].slice(0, first, i + 1).to(torch::kFloat64))
                      .squeeze(0);
    }
  }
  return out.reshape({count, heads * size});
}

struct Case {
  std::int64_t count, length, heads, kv_heads, size, window;
};

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("attend: is the softmax over the visible keys, for every shape, window and past") {
    const std::vector<Case> cases = {
        {1, 1, 2, 1, 4, 0},         // one token
        {1, 1, 2, 2, 4, 1},         // one token, window of itself
        {7, 7, 6, 2, 10, 0},        // grouped
        {7, 7, 4, 4, 6, 0},         // one head a group
        {9, 9, 4, 1, 6, 3},         // window smaller than the sequence
        {9, 9, 4, 1, 6, 1},         // every query sees itself alone
        {9, 9, 4, 1, 6, 9},         // window equal to the sequence
        {9, 9, 4, 1, 6, 100},       // window larger
        {1, 23, 6, 2, 10, 0},       // decoding
        {1, 23, 6, 2, 10, 5},       // decoding in a window
        {4, 23, 6, 2, 10, 0},       // several tokens behind a cache
        {4, 23, 6, 2, 10, 5},       // the same in a window
        {4, 23, 6, 2, 10, 22},      //
        {1030, 1030, 2, 1, 4, 40},  // more than one block of queries
        {1030, 1100, 2, 1, 4, 0},   //
        {1030, 1100, 2, 2, 4, 1050},
    };
    for (const Case& c : cases) {
      CAPTURE(c.count);
      CAPTURE(c.length);
      CAPTURE(c.window);
      const torch::Tensor q = random_tensor({c.count, c.heads, c.size}, 1);
      const torch::Tensor k = random_tensor({c.kv_heads, c.length, c.size}, 2);
      const torch::Tensor v = random_tensor({c.kv_heads, c.length, c.size}, 3);
      const torch::Tensor want = attend_by_definition(q, k, v, c.window);
      CHECK(distance(attend(q, k, v, c.window), want) < 1e-6);
      // Strided, as the projections and the cache hand them over.
      const torch::Tensor strided_k = k.transpose(0, 1).contiguous().transpose(0, 1);
      CHECK(distance(attend(q, strided_k, v, c.window), want) < 1e-6);
    }
  }

  TEST_CASE("attend: gradients in float64 are those of central differences, windowed or not") {
    for (const std::int64_t window : {0, 2}) {
      CHECK(gradient_error([&](const auto& in) { return attend(in[0], in[1], in[2], window); },
                           {random_tensor({5, 4, 3}, 4, torch::kFloat64),
                            random_tensor({2, 5, 3}, 5, torch::kFloat64),
                            random_tensor({2, 5, 3}, 6, torch::kFloat64)}) < 1e-7);
    }
  }

  TEST_CASE("kv_cache: holds what was appended, across growth and truncation") {
    KvCache cache;
    std::vector<torch::Tensor> all;
    std::uint64_t seed = 0;
    for (const std::int64_t count : {300, 1, 1, 250, 1}) {
      const torch::Tensor rows = random_tensor({count, 2, 3}, ++seed);
      all.push_back(rows);
      for (std::size_t layer = 0; layer < 2; ++layer) {
        const auto [keys, values] = cache.append(layer, rows, rows * 2, std::nullopt);
        const torch::Tensor want = torch::cat(all, 0).transpose(0, 1);
        CHECK(torch::equal(keys, want));
        CHECK(torch::equal(values, want * 2));
      }
      cache.advance(count);
    }
    CHECK(cache.length() == 553);
    CHECK(cache.nbytes() >= 2 * 2 * 553 * 2 * 3 * 4);
    cache.truncate(300);
    const torch::Tensor next = random_tensor({1, 2, 3}, 50);
    const auto [keys, values] = cache.append(0, next, next, std::nullopt);
    CHECK(torch::equal(keys, torch::cat({all[0], next}, 0).transpose(0, 1)));
    CHECK(contains(error_of([&] { cache.truncate(301); }),
                   "cannot go back to 301 tokens: it has seen 300"));
    cache.reset();
    CHECK(cache.length() == 0);
    const auto [again, unused] = cache.append(0, next, next, std::nullopt);
    CHECK(again.size(1) == 1);
  }

  TEST_CASE("kv_cache: with a window it stays small, and says when a prefix is gone") {
    KvCache cache;
    const std::int64_t window = 10;
    std::vector<torch::Tensor> all;
    for (std::uint64_t i = 0; i < 2000; ++i) {
      all.push_back(random_tensor({1, 1, 2}, i));
      const auto [keys, values] = cache.append(0, all.back(), all.back(), window);
      cache.advance(1);
      const std::int64_t seen = std::min<std::int64_t>(window, cache.length());
      const torch::Tensor want =
          torch::cat(std::vector<torch::Tensor>(all.end() - seen, all.end()), 0).transpose(0, 1);
      REQUIRE(torch::equal(keys.slice(1, keys.size(1) - seen), want));
    }
    CHECK(cache.nbytes() <= 2 * 512 * 2 * 4);
    CHECK(cache.can_truncate(1999));
    CHECK_FALSE(cache.can_truncate(100));
    CHECK(contains(error_of([&] { cache.truncate(100); }), "sliding window"));
    CHECK(cache.can_truncate(0));
  }

  TEST_CASE("kv_cache: refuses gradients, and a model of other sizes") {
    KvCache cache;
    const torch::Tensor rows = torch::zeros({2, 1, 4}).set_requires_grad(true);
    CHECK(contains(error_of([&] { cache.append(0, rows, rows, std::nullopt); }), "NoGradGuard"));
    const torch::NoGradGuard no_grad;
    cache.append(0, rows, rows, std::nullopt);
    cache.advance(2);
    const torch::Tensor other = torch::zeros({2, 3, 4});
    CHECK(contains(error_of([&] { cache.append(0, other, other, std::nullopt); }), "reset"));
    cache.reset();
    CHECK_NOTHROW(cache.append(0, other, other, std::nullopt));
  }
}
