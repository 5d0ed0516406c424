// JSON text, compared with what Python's json.dumps prints.
#include "json_file.hpp"

#include "support/temporary_folder.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

using lorapp::Error;
using lorapp::detail::dump_json;
using lorapp::detail::JsonStyle;
using lorapp::detail::python_float;
using nlohmann::json;
using nlohmann::ordered_json;

TEST_SUITE("json_dump") {
  TEST_CASE("floats print as Python's repr prints them") {
    const std::pair<double, const char*> cases[] = {
        {0.0, "0.0"},
        {-0.0, "-0.0"},
        {1.0, "1.0"},
        {0.05, "0.05"},
        {2e-4, "0.0002"},
        {1e-4, "0.0001"},
        {2e-5, "2e-05"},
        {1.5e-5, "1.5e-05"},
        {-9.999e-5, "-9.999e-05"},
        {1e-8, "1e-08"},
        {1e-300, "1e-300"},
        {5e-324, "5e-324"},
        {123456.789, "123456.789"},
        {1e15, "1000000000000000.0"},
        {9999999999999998.0, "9999999999999998.0"},
        {1e16, "1e+16"},
        {1.2345e22, "1.2345e+22"},
        {1e30, "1e+30"},
        {0.1 + 0.2, "0.30000000000000004"},
        {2.580698013305664, "2.580698013305664"},
        {std::numeric_limits<double>::max(), "1.7976931348623157e+308"},
        {1000000.0, "1000000.0"},
        {10.5, "10.5"},
    };
    for (const auto& [value, text] : cases) CHECK(python_float(value) == text);
  }

  TEST_CASE("a document prints as json.dumps(indent=2, sort_keys=True) prints it") {
    const json value = {{"z", 1},
                        {"a", {1, 2.0, "x", nullptr, true}},
                        {"m", json::object()},
                        {"l", json::array()},
                        {"o", {{"k", -3}}}};
    CHECK(dump_json(value) ==
          "{\n  \"a\": [\n    1,\n    2.0,\n    \"x\",\n    null,\n    true\n  ],\n  \"l\": [],\n"
          "  \"m\": {},\n  \"o\": {\n    \"k\": -3\n  },\n  \"z\": 1\n}");
    CHECK(dump_json(json(5)) == "5");
  }

  TEST_CASE(
      "an ordered document keeps its order, and indent -1 is one line with Python's separators") {
    ordered_json value;
    value["quant_type"] = "nf4";
    value["blocksize"] = 64;
    value["shape"] = {256, 256};
    CHECK(dump_json(value, {.indent = -1}) ==
          R"({"quant_type": "nf4", "blocksize": 64, "shape": [256, 256]})");
  }

  TEST_CASE("strings are escaped as Python escapes them, with and without ensure_ascii") {
    const json value = std::string("a\"\\/\n\r\t\b\f\x01\x7f é € 😀");
    CHECK(dump_json(value) == R"("a\"\\/\n\r\t\b\f\u0001\u007f \u00e9 \u20ac \ud83d\ude00")");
    CHECK(dump_json(value, {.ensure_ascii = false}) ==
          "\"a\\\"\\\\/\\n\\r\\t\\b\\f\\u0001\x7f é € 😀\"");
  }

  TEST_CASE("what JSON cannot say is an error") {
    CHECK_THROWS_AS(dump_json(json(std::nan(""))), Error);
    CHECK_THROWS_AS(dump_json(json(INFINITY)), Error);
    CHECK_THROWS_AS(dump_json(json(std::string("\xff"))), Error);
    CHECK_THROWS_AS(dump_json(json{{"\xc3", 1}}), Error);
    CHECK(python_float(-INFINITY) == "-inf");
  }

  TEST_CASE("what is written reads back as the same document, with a line feed at the end") {
    const lorapp::test::TemporaryFolder folder;
    const json value = {{"learning_rate", 2e-4}, {"name", "é"}, {"big", 18446744073709551615u}};
    lorapp::detail::write_json_file(folder / "a.json", value);
    CHECK(lorapp::detail::read_json_file(folder / "a.json", "test") == value);
    CHECK(lorapp::test::read_file(folder / "a.json") ==
          "{\n  \"big\": 18446744073709551615,\n  \"learning_rate\": 0.0002,\n  \"name\": "
          "\"\\u00e9\"\n}\n");
  }
}
