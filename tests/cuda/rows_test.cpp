// CUDA's kernels over rows and flat buffers at sizes that take a block of threads several steps,
// against the scalar table. What is small, and every type, is in tests/kernels/rows_test.cpp.
#include "cuda/device_memory.hpp"
#include "cuda/emulation_order.hpp"
#include "kernels/cuda_launch.hpp"
#include "kernels/dispatch.hpp"
#include "support/normal_floats.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <random>
#include <vector>

using namespace lorapp;
using namespace lorapp::kernels;
using test::normal_floats;

namespace {

constexpr std::int64_t kRows = 3;
constexpr std::int64_t kSizes[] = {2047, 2048, 2049, 5000};

const KernelTable& scalar() { return *find_table("scalar"); }
const KernelTable& cuda_table() { return test::table_cuda(); }

// The largest difference, over the largest magnitude.
double worst(const std::vector<float>& found, const std::vector<float>& expected) {
  double difference = 0, largest = 1e-30;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    difference = std::max(difference, std::abs(double{found[i]} - expected[i]));
    largest = std::max(largest, std::abs(double{expected[i]}));
  }
  return difference / largest;
}

}  // namespace

TEST_SUITE("emulated rows") {
  TEST_CASE(
      "norms of long rows and their gradients are the scalar table's within 1e-6, in any order of "
      "the threads") {
    test::for_each_order([] {
      for (const std::int64_t size : kSizes) {
        const auto x = normal_floats(kRows * size, 1), weight = normal_floats(size, 2),
                   dy = normal_floats(kRows * size, 3);
        std::vector<float> y(x.size()), expected(x.size()), scale(kRows), expected_scale(kRows);
        scalar().rms_norm({x.data(), Float::f32, kRows, size, weight.data(), 1e-5f, expected.data(),
                           expected_scale.data()});
        cuda_table().rms_norm(
            {x.data(), Float::f32, kRows, size, weight.data(), 1e-5f, y.data(), scale.data()});
        CHECK(worst(y, expected) < 1e-6);
        CHECK(worst(scale, expected_scale) < 1e-6);

        std::vector<float> dweight(weight.size(), 1.0f), expected_dweight(weight.size(), 1.0f);
        scalar().rms_norm_backward({x.data(), Float::f32, kRows, size, weight.data(),
                                    expected_scale.data(), dy.data(), expected.data(),
                                    expected_dweight.data()});
        cuda_table().rms_norm_backward({x.data(), Float::f32, kRows, size, weight.data(),
                                        expected_scale.data(), dy.data(), y.data(),
                                        dweight.data()});
        CHECK(worst(y, expected) < 1e-6);
        CHECK(worst(dweight, expected_dweight) < 1e-6);
      }
    });
  }

  TEST_CASE(
      "the gradient of a norm's weight over many rows is the sum in double within 1e-6, and has "
      "the same bits in any order of the threads") {
    for (const std::int64_t rows : {63, 64, 65, 300, 128 * 64 + 3}) {
      for (const std::int64_t size : {7, 128, 300}) {
        if (rows > 300 && size > 7) continue;
        CAPTURE(rows);
        CAPTURE(size);
        const auto x = normal_floats(rows * size, 1), weight = normal_floats(size, 2),
                   dy = normal_floats(rows * size, 3), scale = normal_floats(rows, 4);
        std::vector<double> expected(weight.size(), 0.25);
        for (std::size_t i = 0; i < x.size(); ++i) {
          const float normal = x[i] * scale[i / weight.size()];
          expected[i % weight.size()] += double{dy[i]} * normal;
        }
        std::vector<float> first;
        test::for_each_order([&] {
          std::vector<float> dweight(weight.size(), 0.25f);
          cuda_table().rms_norm_backward({x.data(), Float::f32, rows, size, weight.data(),
                                          scale.data(), dy.data(), nullptr, dweight.data()});
          if (first.empty()) first = dweight;
          CHECK(dweight == first);
        });
        for (std::size_t i = 0; i < first.size(); ++i) {
          CHECK(std::abs(first[i] - expected[i]) < 1e-6 * static_cast<double>(rows));
        }
      }
    }
    const float one = 1;
    float dweight = 0;
    CHECK(cuda::rms_norm_backward({&one, Float::f32, 1, 1, &one, &one, &one, nullptr, &dweight},
                                  nullptr) != 0);
  }

  TEST_CASE(
      "swiglu and its gradients of rows with gaps are the bits of rows without, and the gaps "
      "stay") {
    for (const std::int64_t size : {1, 8, 33, 8192, 8200}) {
      const auto stride = size + 5, gradient_stride = 2 * size + 3;
      const auto flat = static_cast<std::size_t>(kRows * size);
      const auto gate = normal_floats(kRows * stride, 1), up = normal_floats(kRows * stride, 2),
                 dy = normal_floats(kRows * size, 3);
      const auto packed = [&](const std::vector<float>& from, std::int64_t distance) {
        std::vector<float> result;
        for (std::int64_t row = 0; row < kRows; ++row) {
          const auto begin = from.begin() + row * distance;
          result.insert(result.end(), begin, begin + size);
        }
        return result;
      };
      const auto own_gate = packed(gate, stride), own_up = packed(up, stride);
      std::vector<float> want(flat), want_dgate(flat), want_dup(flat);
      cuda_table().swiglu({own_gate.data(), own_up.data(), Float::f32, kRows * size, want.data()});
      cuda_table().swiglu_backward({own_gate.data(), own_up.data(), dy.data(), Float::f32,
                                    kRows * size, want_dgate.data(), want_dup.data()});

      const cuda::GateRows rows{size, stride, gradient_stride};
      const std::int64_t reach = (kRows - 1) * stride + size,
                         gradient_reach = (kRows - 1) * gradient_stride + size;
      std::vector<float> y(flat), dgate(static_cast<std::size_t>(gradient_reach), 9.0f),
          dup = dgate;
      test::Mirror forward;
      forward.finish(cuda::swiglu({forward.in(gate.data(), reach), forward.in(up.data(), reach),
                                   Float::f32, kRows * size, forward.out(y.data(), kRows * size)},
                                  nullptr, rows));
      CHECK(y == want);
      test::Mirror backward;
      backward.finish(cuda::swiglu_backward(
          {backward.in(gate.data(), reach), backward.in(up.data(), reach),
           backward.in(dy.data(), kRows * size), Float::f32, kRows * size,
           backward.out(dgate.data(), gradient_reach), backward.out(dup.data(), gradient_reach)},
          nullptr, rows));
      const auto untouched = [&](const std::vector<float>& x) {
        std::int64_t gaps = 0;
        for (std::int64_t i = 0; i < gradient_reach; ++i) {
          if (i % gradient_stride >= size && x[static_cast<std::size_t>(i)] == 9.0f) ++gaps;
        }
        return gaps == gradient_reach - kRows * size;
      };
      CHECK(untouched(dgate));
      CHECK(untouched(dup));
      CHECK(packed(dgate, gradient_stride) == want_dgate);
      CHECK(packed(dup, gradient_stride) == want_dup);
    }
  }

  TEST_CASE(
      "the loss of long rows and its gradient are the scalar table's within 1e-6, in any order of "
      "the threads") {
    test::for_each_order([] {
      for (const std::int64_t size : kSizes) {
        const auto logits = normal_floats(kRows * size, 4, 3);
        const std::vector<std::int64_t> labels = {0, size - 1, size / 2};
        struct Result {
          std::vector<float> gradient, largest, sum, picked;
        };
        const auto run = [&](const KernelTable& table) {
          Result r{logits, std::vector<float>(kRows), std::vector<float>(kRows),
                   std::vector<float>(kRows)};
          std::vector<float> scratch(static_cast<std::size_t>(size) + kRowStep);
          table.cross_entropy({r.gradient.data(), Float::f32, kRows, size, labels.data(), true,
                               0.25f, r.largest.data(), r.sum.data(), r.picked.data(),
                               scratch.data()});
          return r;
        };
        const Result expected = run(scalar()), found = run(cuda_table());
        CHECK(found.largest == expected.largest);
        CHECK(found.picked == expected.picked);
        CHECK(worst(found.sum, expected.sum) < 1e-6);
        CHECK(worst(found.gradient, expected.gradient) < 1e-6);
      }
    });
  }

  TEST_CASE("a row of logits of which most are minus infinity has the loss of the others") {
    std::vector<float> logits(3000, -std::numeric_limits<float>::infinity());
    logits[2999] = 1.0f, logits[5] = 1.0f;
    const std::int64_t label = 5;
    float largest = 0, sum = 0, picked = 0;
    cuda_table().cross_entropy(
        {logits.data(), Float::f32, 1, 3000, &label, true, 1.0f, &largest, &sum, &picked, nullptr});
    CHECK(largest == 1.0f);
    CHECK(sum == 2.0f);
    CHECK(logits[5] == -0.5f);
    CHECK(logits[2999] == 0.5f);
    CHECK(logits[0] == 0.0f);
  }

  TEST_CASE("squares are summed as in double, in any order of the threads to the same bits") {
    const std::int64_t n = 100'003;
    const auto x = normal_floats(n, 5, 100);
    double expected = 0;
    for (const float each : x) expected += double{each} * each;
    const double first = cuda_table().sum_of_squares(x.data(), n);
    CHECK(std::abs(first / expected - 1) < 1e-13);
    test::for_each_order([&] { CHECK(cuda_table().sum_of_squares(x.data(), n) == first); });
    CHECK(cuda_table().sum_of_squares(nullptr, 0) == 0.0);
  }

  TEST_CASE("a step with clipping on the device is the step with the factor of clip_grad_norm_") {
    const std::int64_t n = 9000;
    const auto g = normal_floats(n, 6);
    const AdamWStep step{0.999f, 0.98f, 0.1f, 0.02f, 0.3f, 3e-3f, 1e-8f, 1.0f};
    for (const double max_norm : {0.5, 1e6, 0.0}) {
      const double squares = cuda_table().sum_of_squares(g.data(), n);
      AdamWStep clipped = step;
      clipped.clip = static_cast<float>(
          max_norm > 0 ? std::min(1.0, max_norm / (std::sqrt(squares) + 1e-6)) : 1.0);
      auto p = normal_floats(n, 7), m = normal_floats(n, 8, 0.1f),
           v = std::vector<float>(g.size(), 0.5f);
      auto expected_p = p, expected_m = m, expected_v = v;
      scalar().adamw(
          {expected_p.data(), g.data(), expected_m.data(), expected_v.data(), n, clipped});
      test::Mirror mirror;
      mirror.finish(cuda::adamw({mirror.out(p.data(), n), mirror.in(g.data(), n),
                                 mirror.out(m.data(), n), mirror.out(v.data(), n), n, step},
                                {mirror.in(&squares, 1), max_norm}, nullptr));
      CHECK(p == expected_p);
      CHECK(m == expected_m);
      CHECK(v == expected_v);
    }
  }

  TEST_CASE("so is one with moments in 8 bits, in any order of the threads") {
    const std::int64_t n = 3000, blocks = 12;
    const auto g = normal_floats(n, 6);
    const AdamWStep step{0.999f, 0.98f, 0.1f, 0.02f, 0.3f, 3e-3f, 1e-8f, 1.0f};
    const double squares = cuda_table().sum_of_squares(g.data(), n);
    AdamWStep clipped = step;
    clipped.clip = static_cast<float>(0.5 / (std::sqrt(squares) + 1e-6));
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(n));
    for (std::size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::uint8_t>(i * 37);
    struct State {
      std::vector<float> p;
      std::vector<std::uint8_t> m, v;
      std::vector<float> m_absmax, v_absmax;
    };
    const State given{normal_floats(n, 7), codes, codes, std::vector<float>(blocks, 0.1f),
                      std::vector<float>(blocks, 0.01f)};
    State expected = given;
    scalar().adamw_8bit({expected.p.data(), g.data(), expected.m.data(), expected.v.data(),
                         expected.m_absmax.data(), expected.v_absmax.data(), n, clipped});
    test::for_each_order([&] {
      State found = given;
      test::Mirror mirror;
      mirror.finish(cuda::adamw_8bit(
          {mirror.out(found.p.data(), n), mirror.in(g.data(), n), mirror.out(found.m.data(), n),
           mirror.out(found.v.data(), n), mirror.out(found.m_absmax.data(), blocks),
           mirror.out(found.v_absmax.data(), blocks), n, step},
          {mirror.in(&squares, 1), 0.5}, nullptr));
      CHECK(found.p == expected.p);
      CHECK(found.m == expected.m);
      CHECK(found.v == expected.v);
      CHECK(found.m_absmax == expected.m_absmax);
      CHECK(found.v_absmax == expected.v_absmax);
    });
  }

  TEST_CASE("rows of a table are copied where ids ask for them, whatever their size") {
    for (const std::int64_t size : {1, 9, 64, 3000}) {
      const auto table = normal_floats(7 * size, 9);
      const std::vector<std::int64_t> ids = {6, 0, 3, 3};
      std::vector<float> out(static_cast<std::size_t>(4 * size));
      test::Mirror mirror;
      mirror.finish(
          cuda::gather_rows({mirror.in(table.data(), 7 * size), Float::f32, size,
                             mirror.in(ids.data(), 4), 4, mirror.out(out.data(), 4 * size)},
                            nullptr));
      for (std::size_t row = 0; row < ids.size(); ++row) {
        for (std::int64_t i = 0; i < size; ++i) {
          CHECK(out[row * static_cast<std::size_t>(size) + static_cast<std::size_t>(i)] ==
                table[static_cast<std::size_t>(ids[row] * size + i)]);
        }
      }
    }
  }
}
