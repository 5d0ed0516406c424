// Operations of this room on inputs at odd addresses, in lengths from 1 to 40000, and not finite.
#include "nn/toy.hpp"
#include "support/for_each_isa.hpp"
#include "support/odd_address.hpp"

#include <lorapp/nn/mlp.hpp>
#include <lorapp/nn/packed_attention.hpp>
#include <lorapp/nn/rms_norm.hpp>
#include <lorapp/nn/rotary.hpp>

#include <cmath>
#include <utility>

using namespace lorapp;
using namespace lorapp::test;

namespace {

using Function = std::function<torch::Tensor(const std::vector<torch::Tensor>&)>;

// The gradients of Σ f(x)·w and the value, with all operands where `place` puts them.
std::vector<torch::Tensor> results_of(const Function& f,
                                      const std::vector<torch::Tensor>& given,
                                      const std::function<torch::Tensor(torch::Tensor)>& place) {
  std::vector<torch::Tensor> inputs;
  for (const torch::Tensor& x : given) inputs.push_back(place(x).requires_grad_());
  const torch::Tensor y = f(inputs);
  const torch::Tensor weights = place(random_tensor(y.sizes(), 99, y.scalar_type()));
  std::vector<torch::Tensor> results = torch::autograd::grad({y}, inputs, {weights});
  results.push_back(y.detach());
  return results;
}

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE("operands at odd addresses give the bits of aligned ones, forward and backward") {
    RotaryEmbedding rotary(16, 10000.0);
    for_each_isa([&](const std::string&) {
      for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
        const Rotation angles = rotary.at(torch::arange(21), dtype);
        const Rotation moved{at_odd_address(angles.cos), at_odd_address(angles.sin)};
        const auto x = [&](torch::IntArrayRef shape, std::uint64_t seed) {
          return random_tensor(shape, seed, dtype);
        };
        const std::vector<std::pair<Function, std::vector<torch::Tensor>>> cases = {
            {[](const auto& in) { return rms_norm(in[0], in[1], 1e-5); },
             {x({5, 67}, 1), x({67}, 2)}},
            {[](const auto& in) { return swiglu(in[0], in[1]); }, {x({5, 67}, 3), x({5, 67}, 4)}},
            {[&](const auto& in) {
               const bool odd = in[0].storage_offset() != 0;
               return rotate(in[0], odd ? moved : angles);
             },
             {x({21, 3, 16}, 5)}},
            {[](const auto& in) {
               return packed_attention(in[0], in[1], in[2], {0, 1, 18, 21}, 0);
             },
             {x({21, 4, 16}, 6), x({21, 2, 16}, 7), x({21, 2, 16}, 8)}}};
        for (std::size_t i = 0; i < cases.size(); ++i) {
          INFO("case ", i, " ", c10::toString(dtype));
          const auto& [f, operands] = cases[i];
          const auto want = results_of(f, operands, [](torch::Tensor t) { return t.clone(); });
          const auto got = results_of(f, operands, at_odd_address);
          for (std::size_t k = 0; k < want.size(); ++k) CHECK(torch::equal(got[k], want[k]));
        }
      }
    });
  }

  TEST_CASE("cached_attention: a NaN in a key reaches the heads and the queries that see it") {
    constexpr std::int64_t kLength = 1501;  // more than one part
    const torch::Tensor values = random_tensor({2, kLength, 16}, 1);
    for_each_isa([&](const std::string&) {
      for (const std::int64_t position : {0, 5, 63, 64, 1023, 1024, 1498, 1500}) {
        torch::Tensor keys = random_tensor({2, kLength, 16}, 2);
        keys[0][position][7] = std::nan("");
        for (const std::int64_t queries : {1, 5}) {
          INFO("position ", position, " queries ", queries);
          const torch::Tensor q = random_tensor({queries, 4, 16}, 3);
          const torch::Tensor out = cached_attention(q, keys, values, 0).view({queries, 4, 16});
          for (std::int64_t i = 0; i < queries; ++i) {
            const bool sees = position <= kLength - queries + i;
            CHECK(out[i].slice(0, 0, 2).isnan().all().item<bool>() == sees);
            CHECK(out[i].slice(0, 0, 2).isfinite().all().item<bool>() == !sees);
          }
          CHECK(out.slice(1, 2).isfinite().all().item<bool>());
        }
      }
    });
  }

  TEST_CASE("packed_attention: an example of 40000 tokens between short ones is attended whole") {
    constexpr std::int64_t kLong = 40'000, kBegin = 1, kTokens = kLong + 3;
    constexpr std::int64_t kWindow = 300, kSize = 8;
    const std::vector<std::int64_t> ends = {0, kBegin, kBegin + kLong, kTokens};
    const torch::Tensor q = random_tensor({kTokens, 2, kSize}, 1).requires_grad_();
    const torch::Tensor k = random_tensor({kTokens, 1, kSize}, 2).requires_grad_();
    const torch::Tensor v = random_tensor({kTokens, 1, kSize}, 3).requires_grad_();
    const torch::Tensor out = packed_attention(q, k, v, ends, kWindow).view({kTokens, 2, kSize});
    CHECK(torch::equal(out[0][0], v[0][0]));
    // Some queries, in float64; a gradient for them alone.
    const std::vector<std::int64_t> probes = {0, 1, 299, 300, 20'011, 39'999};
    std::vector<torch::Tensor> wide;
    for (const torch::Tensor& x : {q, k, v}) {
      wide.push_back(x.detach().to(torch::kFloat64).requires_grad_());
    }
    torch::Tensor loss = torch::zeros({}), wide_loss = torch::zeros({}, torch::kFloat64);
    for (const std::int64_t probe : probes) {
      INFO("query ", probe);
      const std::int64_t first = kBegin + std::max<std::int64_t>(0, probe - kWindow + 1);
      const std::int64_t last = kBegin + probe + 1;
      const torch::Tensor keys = wide[1].slice(0, first, last).squeeze(1);
      const torch::Tensor scores = wide[0][last - 1].mm(keys.t()) / std::sqrt(double{kSize});
      const torch::Tensor want = scores.softmax(1).mm(wide[2].slice(0, first, last).squeeze(1));
      CHECK(distance(out[last - 1], want) < 2e-6);
      const torch::Tensor weights = random_tensor({2, kSize}, 10 + static_cast<unsigned>(probe));
      loss = loss + (out[last - 1] * weights).sum();
      wide_loss = wide_loss + (want * weights).sum();
    }
    const auto got = torch::autograd::grad({loss}, {q, k, v});
    const auto want = torch::autograd::grad({wide_loss}, wide);
    for (std::size_t i = 0; i < 3; ++i) CHECK(distance(got[i], want[i]) < 2e-6);
  }
}
