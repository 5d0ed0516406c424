#include <lorapp/generate/text_metrics.hpp>

#include <doctest/doctest.h>

using lorapp::exact_match;
using lorapp::token_f1;

TEST_SUITE("generate") {
  TEST_CASE("text metrics: an exact match ignores white space at the ends alone") {
    CHECK(exact_match(" Paris\n", "Paris"));
    CHECK(exact_match("", " \n"));
    CHECK_FALSE(exact_match("paris", "Paris"));
    CHECK_FALSE(exact_match("New  York", "New York"));
  }

  TEST_CASE("text metrics: token_f1 is the harmonic mean of precision and recall of words") {
    CHECK(token_f1("a b c", "a b c") == 1);
    CHECK(token_f1("a b", "c d") == 0);
    CHECK(token_f1("", "") == 1);
    CHECK(token_f1("", "a") == 0);
    CHECK(token_f1("a b", "b c d") == doctest::Approx(2.0 * 0.5 * (1.0 / 3) / (0.5 + 1.0 / 3)));
  }

  TEST_CASE("text metrics: a word that is repeated counts as often as the other text has it") {
    CHECK(token_f1("a a a a", "a b") == doctest::Approx(2.0 * 1 / 6));
  }
}
