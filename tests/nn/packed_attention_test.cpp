// packed_attention and cached_attention beside attend() in float64: values, gradients, what they
// cost, what a NaN reaches, threads.
#include "nn/attention_units.hpp"
#include "nn/toy.hpp"

#include <lorapp/nn/attention.hpp>
#include <lorapp/quant/backend.hpp>

#include <ATen/Parallel.h>

#include <cmath>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

struct Inputs {
  torch::Tensor q, k, v;
  std::vector<std::int64_t> ends;
};

Inputs inputs_of(const std::vector<std::int64_t>& lengths,
                 std::int64_t heads,
                 std::int64_t kv_heads,
                 std::int64_t size,
                 torch::Dtype dtype = torch::kFloat32) {
  std::vector<std::int64_t> ends = {0};
  for (const std::int64_t length : lengths) ends.push_back(ends.back() + length);
  return {random_tensor({ends.back(), heads, size}, 1, dtype),
          random_tensor({ends.back(), kv_heads, size}, 2, dtype),
          random_tensor({ends.back(), kv_heads, size}, 3, dtype), ends};
}

// The result and the gradients of q, k and v of Σ result · w, w random.
std::vector<torch::Tensor> results_of(const Inputs& in, std::int64_t window, torch::Dtype dtype) {
  std::vector<torch::Tensor> leaves;
  for (const torch::Tensor& x : {in.q, in.k, in.v}) {
    leaves.push_back(x.to(dtype).detach().clone().set_requires_grad(true));
  }
  const torch::Tensor out = packed_attention(leaves[0], leaves[1], leaves[2], in.ends, window);
  const torch::Tensor weights = random_tensor(out.sizes(), 9, in.q.scalar_type()).to(dtype);
  std::vector<torch::Tensor> results = torch::autograd::grad({out}, leaves, {weights});
  results.insert(results.begin(), out.detach());
  return results;
}

// float64 takes attend().
void check_beside_definition(const Inputs& in, std::int64_t window, double tolerance) {
  const auto got = results_of(in, window, in.q.scalar_type());
  const auto want = results_of(in, window, torch::kFloat64);
  for (std::size_t i = 0; i < 4; ++i) {
    CAPTURE(i);
    CHECK((got[i].scalar_type() == in.q.scalar_type()));
    REQUIRE(got[i].sizes() == want[i].sizes());
    // Where a query sees one key alone, the gradients of q and k are zero: beside that of v.
    const double size = want[i].norm().item<double>() + want[3].norm().item<double>();
    CHECK((got[i].to(torch::kFloat64) - want[i]).norm().item<double>() < tolerance * size);
  }
}

class Threads {
 public:
  explicit Threads(int count) : before_(at::get_num_threads()) { at::set_num_threads(count); }
  ~Threads() { at::set_num_threads(before_); }

 private:
  int before_;
};

}  // namespace

TEST_SUITE("nn") {
  TEST_CASE(
      "packed_attention: result and gradients are attend's, grouped, windowed, in every dtype") {
    const std::vector<std::vector<std::int64_t>> batches = {
        {1}, {1, 1, 1}, {33}, {5, 1, 40, 17}, {130, 3}, {0, 12, 0}, {260}};
    for (const auto& lengths : batches) {
      for (const std::int64_t window : {0, 1, 9, 100}) {
        CAPTURE(lengths);
        CAPTURE(window);
        check_beside_definition(inputs_of(lengths, 6, 2, 16), window, 2e-6);
        check_beside_definition(inputs_of(lengths, 4, 4, 40), window, 2e-6);
        check_beside_definition(inputs_of(lengths, 4, 1, 64), window, 2e-6);
      }
    }
    check_beside_definition(inputs_of({70, 41}, 8, 2, 128, torch::kBFloat16), 0, 6e-3);
    check_beside_definition(inputs_of({70, 41}, 8, 2, 80, torch::kHalf), 20, 8e-4);
  }

  TEST_CASE("packed_attention: takes strided rows and strided gradients") {
    const Inputs in = inputs_of({20, 31}, 4, 2, 32);
    const torch::Tensor fused = torch::cat({in.q, in.k, in.v}, 1).set_requires_grad(true);
    const torch::Tensor out = packed_attention(fused.narrow(1, 0, 4), fused.narrow(1, 4, 2),
                                               fused.narrow(1, 6, 2), in.ends, 0);
    const torch::Tensor weights = random_tensor({128, 51}, 9).t();
    const torch::Tensor got = torch::autograd::grad({out}, {fused}, {weights})[0];
    const torch::Tensor wide = fused.detach().to(torch::kFloat64).set_requires_grad(true);
    const torch::Tensor want_out = packed_attention(wide.narrow(1, 0, 4), wide.narrow(1, 4, 2),
                                                    wide.narrow(1, 6, 2), in.ends, 0);
    const torch::Tensor want =
        torch::autograd::grad({want_out}, {wide}, {weights.to(torch::kFloat64)})[0];
    CHECK(distance(out, want_out) < 2e-6);
    CHECK(distance(got, want) < 2e-6);
    // A gradient of one number for all, as sum() gives it.
    const torch::Tensor of_sum =
        torch::autograd::grad({packed_attention(fused.narrow(1, 0, 4), fused.narrow(1, 4, 2),
                                                fused.narrow(1, 6, 2), in.ends, 0)
                                   .sum()},
                              {fused})[0];
    CHECK(of_sum.narrow(1, 6, 2).sum().item<double>() == doctest::Approx(51 * 4 * 32));
  }

  TEST_CASE("packed_attention: odd head sizes and empty batches are attended too") {
    check_beside_definition(inputs_of({9, 14}, 4, 2, 10), 3, 2e-6);
    check_beside_definition(inputs_of({9, 14}, 2, 1, 264), 0, 2e-6);
    for (const std::int64_t size : {8, 10}) {
      const Inputs in = inputs_of({0}, 4, 2, size);
      CHECK(packed_attention(in.q, in.k, in.v, in.ends, 0).sizes() ==
            torch::IntArrayRef({0, 4 * size}));
    }
    const Inputs in = inputs_of({0, 0}, 4, 2, 8);
    CHECK(results_of(in, 0, torch::kFloat32)[2].sizes() == in.k.sizes());
  }

  TEST_CASE("packed_attention: many short sequences cost what their own lengths do") {
    const auto pairs_of = [](const std::vector<std::int64_t>& lengths, std::int64_t window) {
      const Inputs in = inputs_of(lengths, 4, 1, 8);
      const auto forward =
          lorapp::detail::packed_attention_forward(in.q, in.k, in.v, in.ends, window);
      const auto backward = lorapp::detail::packed_attention_backward(in.q, in.k, in.v, forward,
                                                                      forward.out, in.ends, window);
      CHECK(forward.pairs == backward.pairs);
      return static_cast<double>(forward.pairs);
    };
    const double whole = pairs_of({8192}, 0);
    const double packed = pairs_of(std::vector<std::int64_t>(64, 128), 0);
    CHECK(whole / packed > 0.9 * 64);
    CHECK(whole / packed < 1.1 * 64);
    CHECK(whole < 1.01 * 4 * 8192.0 * 8193 / 2);
    CHECK(pairs_of({8192}, 128) < 1.25 * 4 * 8192 * 128);
  }

  TEST_CASE("packed_attention: the bits do not depend on the number of threads") {
    const Inputs in = inputs_of({300, 7, 64, 190}, 8, 4, 32);
    std::vector<std::vector<torch::Tensor>> all;
    for (const int count : {1, 2, 3, 7}) {
      const Threads threads(count);
      all.push_back(results_of(in, 50, torch::kFloat32));
      for (std::size_t i = 0; i < 4; ++i) CHECK(torch::equal(all.back()[i], all.front()[i]));
    }
    const torch::Tensor q = random_tensor({1, 8, 32}, 1), kv = random_tensor({4, 5000, 32}, 2);
    torch::Tensor decoded;
    for (const int count : {1, 2, 5}) {
      const Threads threads(count);
      const torch::Tensor next = cached_attention(q, kv, kv, 0);
      if (decoded.defined()) CHECK(torch::equal(next, decoded));
      decoded = next;
    }
  }

  TEST_CASE("packed_attention: a NaN stays in its sequence, forward and backward") {
    Inputs in = inputs_of({20, 30, 25}, 4, 2, 16);
    in.k[35].fill_(std::nan(""));
    in.v[40].fill_(std::nan(""));
    const auto got = results_of(in, 0, torch::kFloat32);
    for (const torch::Tensor& x : got) {
      CHECK(x.slice(0, 0, 20).isfinite().all().item<bool>());
      CHECK(x.slice(0, 50, 75).isfinite().all().item<bool>());
      CHECK(x.slice(0, 20, 50).isnan().any().item<bool>());
    }
  }

  TEST_CASE("packed_attention: keeps q, k, v, its result and one float a row, and no scores") {
    const Inputs in = inputs_of({4096}, 2, 1, 16);
    const auto forward = lorapp::detail::packed_attention_forward(in.q, in.k, in.v, in.ends, 0);
    CHECK(forward.out.nbytes() == in.q.nbytes());
    CHECK(forward.log_sum.numel() == 4096 * 2);
    const torch::Tensor scores = in.q[4095][1].unsqueeze(0).mm(in.k.squeeze(1).t()) / 4.0;
    CHECK(forward.log_sum[4095][1].item<double>() ==
          doctest::Approx(scores.logsumexp(1).item<double>()).epsilon(1e-5));
  }

  TEST_CASE("packed_attention: refuses second derivatives, and shapes that do not fit") {
    const Inputs in = inputs_of({5}, 2, 1, 8);
    const torch::Tensor q = in.q.clone().set_requires_grad(true);
    const torch::Tensor out = packed_attention(q, in.k, in.v, in.ends, 0);
    CHECK(contains(error_of([&] {
                     const auto g =
                         torch::autograd::grad({out.square().sum()}, {q}, {}, /*retain_graph=*/true,
                                               /*create_graph=*/true);
                     torch::autograd::grad({g[0].sum()}, {q});
                   }),
                   "second derivatives are not supported"));
    CHECK(contains(error_of([&] {
                     packed_attention(in.q, in.k, in.v, {0, 4}, 0);
                   }),
                   "expected to rise from 0 to 5"));
    CHECK(contains(error_of([&] {
                     packed_attention(in.q, in.k, in.v, {0, 4, 2, 5}, 0);
                   }),
                   "expected to rise from 0 to 5"));
    CHECK(contains(error_of([&] { packed_attention(in.q, in.k.slice(0, 1), in.v, in.ends, 0); }),
                   "expected [T, heads, d]"));
  }

  TEST_CASE("cached_attention: is attend of queries behind a past, in every dtype and window") {
    for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
      const double tolerance = dtype == torch::kFloat32 ? 2e-6
                               : dtype == torch::kHalf  ? 8e-4
                                                        : 6e-3;
      for (const std::int64_t length : {1, 2, 64, 65, 700, 2300}) {
        // Views of a cache with room for more.
        const torch::Tensor k = random_tensor({2, length + 9, 24}, 2, dtype).slice(1, 0, length);
        const torch::Tensor v = random_tensor({2, length + 9, 24}, 3, dtype).slice(1, 0, length);
        for (const std::int64_t count : {1, 2, 5, 60}) {
          if (count > length) continue;
          const torch::Tensor q = random_tensor({count, 6, 24}, 1, dtype);
          for (const std::int64_t window : {0, 1, 50, 5000}) {
            CAPTURE(length);
            CAPTURE(count);
            CAPTURE(window);
            const torch::Tensor got = cached_attention(q, k, v, window);
            const auto wide = [](const torch::Tensor& x) { return x.to(torch::kFloat64); };
            CHECK((got.scalar_type() == dtype));
            CHECK(distance(got, attend(wide(q), wide(k), wide(v), window)) < tolerance);
          }
        }
      }
    }
  }
}
