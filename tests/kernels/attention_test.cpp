// The attention kernels: every table against sums in double, on ragged lengths, windows, groups of
// heads and element types; what they skip, and what a NaN reaches.
#include "kernels/attention_problem.hpp"

#include <cmath>
#include <string>
#include <utility>

namespace lorapp::kernels {
namespace {

constexpr Float kTypes[] = {Float::f32, Float::bf16, Float::f16};

template <class F>
void for_each_table(F f) {
  for (const KernelTable& table : compiled_tables()) {
    if (can_run(table)) f(table);
  }
}

TEST_SUITE("attention") {
  TEST_CASE("every table attends as sums in double do, for ragged lengths, windows and types") {
    for_each_table([](const KernelTable& table) {
      for (const std::int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 130, 200}) {
        for (const std::int64_t window : {0, 1, 7, 64}) {
          for (const Float type : kTypes) {
            const Shape shape{length, length, 3, 24, window, type};
            INFO(std::string(table.name), ": ", name_of(shape));
            Problem problem(shape);
            check_forward(table, problem);
            check_backward(table, problem);
          }
        }
      }
    });
  }

  TEST_CASE("every table attends with any number of heads a group and any head size") {
    for_each_table([](const KernelTable& table) {
      for (const std::int64_t heads : {1, 2, 3, 4, 5, 6, 7, 8, 33, 128}) {
        const Shape shape{40, 40, heads, 32, heads % 2 * 9, Float::f32};
        INFO(std::string(table.name), ": ", name_of(shape));
        Problem problem(shape);
        check_forward(table, problem);
        check_backward(table, problem);
      }
      for (const std::int64_t size : {8, 16, 40, 64, 72, 80, 96, 104, 128, 256}) {
        const Shape shape{50, 50, 2, size, 0, kTypes[size / 8 % 3]};
        INFO(std::string(table.name), ": ", name_of(shape));
        Problem problem(shape);
        check_forward(table, problem);
        check_backward(table, problem);
      }
    });
  }

  TEST_CASE("every table attends from queries behind a past") {
    for_each_table([](const KernelTable& table) {
      for (const auto& [queries, keys] :
           {std::pair<std::int64_t, std::int64_t>{1, 100}, {5, 101}, {70, 300}, {3, 3}}) {
        for (const std::int64_t window : {0, 1, 20, 97}) {
          const Shape shape{queries, keys, 4, 16, window, Float::f32};
          INFO(std::string(table.name), ": ", name_of(shape));
          Problem problem(shape);
          check_forward(table, problem);
        }
      }
    });
  }

  TEST_CASE("every table decodes one query, in parts of the keys that add up to the whole") {
    for_each_table([](const KernelTable& table) {
      for (const Float type : kTypes) {
        for (const std::int64_t keys : {1, 2, 63, 64, 65, 200}) {
          for (const std::int64_t heads : {1, 2, 3, 4, 7}) {
            for (const std::int64_t size : {8, 64, 72, 80, 128}) {
              for (const std::int64_t window : {0, 30}) {
                const Shape shape{1, keys, heads, size, window, type};
                INFO(std::string(table.name), ": ", name_of(shape));
                Problem problem(shape);
                check_decode(table, problem, keys / 3);
              }
            }
          }
        }
      }
    });
  }

  TEST_CASE("scores far apart, and all far below zero, give what double gives") {
    for_each_table([](const KernelTable& table) {
      for (const float scale : {30.0f, 300.0f}) {
        const Shape shape{100, 100, 2, 16, 0, Float::f32};
        Problem problem(shape);
        for (std::int64_t j = 0; j < 100; ++j) problem.k.set(j, 0, 0, -scale);
        for (std::int64_t i = 0; i < 100; ++i) problem.q.set(i, 1, 0, scale);
        problem.forward(table);
        for (std::int64_t i = 0; i < 100; ++i) {
          for (std::int64_t c = 0; c < 16; ++c) {
            CHECK(std::isfinite(problem.out.get(i, 0, c)));
            CHECK(std::isfinite(problem.out.get(i, 1, c)));
          }
          CHECK(problem.log_sum[at(i * 2 + 1)] < -scale * scale / 5);
        }
      }
    });
  }

  TEST_CASE("keys that no query of a tile sees are not computed") {
    for_each_table([](const KernelTable& table) {
      const std::int64_t n = 1024;
      Problem all({n, n, 4, 8, 0, Float::f32}), windowed({n, n, 4, 8, 64, Float::f32});
      for (Problem* problem : {&all, &windowed}) {
        problem->forward(table);
        problem->backward(table);
        CHECK(problem->pairs == problem->backward_pairs);
      }
      const double half = 4.0 * n * (n + 1) / 2, band = 4.0 * n * 64;
      CHECK(static_cast<double>(all.pairs) >= half);
      CHECK(static_cast<double>(all.pairs) < 1.03 * half);
      CHECK(static_cast<double>(windowed.pairs) < 1.4 * band);
    });
  }

  TEST_CASE("a NaN in a key reaches the queries that see it, and in a query that query alone") {
    for_each_table([](const KernelTable& table) {
      const Shape shape{60, 60, 2, 16, 0, Float::f32};
      Problem of_key(shape), of_query(shape);
      of_key.k.set(40, 0, 3, std::nanf(""));
      of_query.q.set(40, 1, 3, std::nanf(""));
      of_key.forward(table);
      of_query.forward(table);
      for (std::int64_t i = 0; i < 60; ++i) {
        for (std::int64_t h = 0; h < 2; ++h) {
          INFO(std::string(table.name), " query ", i, " head ", h);
          CHECK(std::isnan(of_key.out.get(i, h, 0)) == (i >= 40));
          CHECK(std::isnan(of_query.out.get(i, h, 0)) == (i == 40 && h == 1));
        }
      }
    });
  }
}

}  // namespace
}  // namespace lorapp::kernels
