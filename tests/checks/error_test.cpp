// error.hpp: messages and the collector.
#include <lorapp/error.hpp>

#include <doctest/doctest.h>

#include <string>

using lorapp::Error;
using lorapp::Problems;

TEST_SUITE("error") {
  TEST_CASE("a failed check throws one Error that names the op and joins the pieces") {
    const int found = 3;
    try {
      LORAPP_CHECK(found > 4, "op_name", "found ", found, ", expected more than ", 4);
      FAIL("no exception");
    } catch (const Error& error) {
      CHECK(error.op() == "op_name");
      CHECK(std::string(error.what()) == "[op_name] found 3, expected more than 4");
    }
  }

  TEST_CASE("a check that holds does not evaluate its message") {
    int evaluated = 0;
    LORAPP_CHECK(true, "op", ++evaluated);
    CHECK(evaluated == 0);
  }

  TEST_CASE("Problems lists every problem in one message, and a single one without a number") {
    Problems none("file", "a.json");
    CHECK_NOTHROW(none.throw_if_any());

    Problems one("file", "a.json");
    one.add("key ", 1, " is missing");
    CHECK_THROWS_WITH_AS(one.throw_if_any(), "[file] a.json: key 1 is missing", Error);

    Problems two("file", "a.json");
    two.add("first");
    two.add("second");
    CHECK_THROWS_WITH_AS(two.throw_if_any(), "[file] a.json: 2 problems\n  1. first\n  2. second",
                         Error);
  }

  TEST_CASE("Problems stops listing after twenty and says how many are left") {
    Problems many("file", "a.json");
    for (int i = 0; i < 25; ++i) many.add("problem ", i);
    try {
      many.throw_if_any();
      FAIL("no exception");
    } catch (const Error& error) {
      const std::string message = error.what();
      CHECK(message.find("25 problems") != std::string::npos);
      CHECK(message.find("problem 19") != std::string::npos);
      CHECK(message.find("problem 20") == std::string::npos);
      CHECK(message.find("and 5 more") != std::string::npos);
    }
  }
}
