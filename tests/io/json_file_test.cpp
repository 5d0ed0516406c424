// Reading JSON: positions, bounds, typed fields.
#include "json_file.hpp"

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include "raw_safetensors.hpp"

#include <doctest/doctest.h>

using namespace lorapp::detail;
using lorapp::Error;
using lorapp::Problems;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::TemporaryFolder;
using nlohmann::json;

namespace {

std::string parse_error(std::string_view text) {
  return error_of([&] { parse_json(text, "op", "file.json"); });
}

std::string problems_of(const Problems& problems) {
  return error_of([&] { problems.throw_if_any(); });
}

}  // namespace

TEST_SUITE("json_file") {
  TEST_CASE("a document is read, white space and a byte order mark around it allowed") {
    const TemporaryFolder folder;
    folder.write("a.json", "\xEF\xBB\xBF {\"a\": [1, 2.5, \"x\"]}\n");
    const json document = read_json_object(folder / "a.json", "op");
    CHECK(document["a"][1] == 2.5);
  }

  TEST_CASE("a syntax error names the file, the line, the column and what was expected") {
    const std::string message = parse_error("{\n  \"a\": 1,\n  \"b\" 2\n}");
    CHECK_MESSAGE(contains(message, "[op] file.json: line 3, column 7: "), message);
    CHECK(contains(message, "expected ':'"));
    CHECK(contains(parse_error("{\"a\": 1} x"), "line 1, column 10"));
    CHECK(contains(parse_error("{\"a\": 1e999}"), "file.json"));
    CHECK(contains(parse_error("{\"a\": \"\xff\"}"), "UTF-8"));
    CHECK(contains(parse_error("{\"a\": "), "unexpected end of input"));
    CHECK(contains(parse_error(" \n"), "is empty"));
    CHECK_FALSE(contains(message, "json.exception"));
  }

  TEST_CASE(
      "keys given twice in one object are an error that names them all; in two objects they are "
      "not") {
    const std::string message = parse_error(R"({"a": 1, "b": {"x": 1, "x": 2}, "a": 3})");
    CHECK(contains(message, R"("a" is given more than once)"));
    CHECK(contains(message, R"("x" is given more than once)"));
    CHECK(parse_error(R"({"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 2}]})").empty());
  }

  TEST_CASE("too deep nesting is an error, and deep nesting that is allowed is not") {
    CHECK(contains(parse_error(std::string(100000, '[')), "file.json"));
    CHECK(contains(parse_error(std::string(1000, '[') + std::string(1000, ']')), "levels deep"));
    CHECK(parse_error(std::string(200, '[') + std::string(200, ']')).empty());
  }

  TEST_CASE(
      "a missing file, a folder, a file beyond the bound and a wrong kind of document are errors") {
    const TemporaryFolder folder;
    folder.write("list.json", "[1]");
    CHECK(contains(error_of([&] { read_json_file(folder / "no.json", "op"); }),
                   "no.json: no such file"));
    CHECK(contains(error_of([&] { read_json_file(folder / std::string(300, 'x'), "op"); }),
                   ": File name too long"));
    CHECK(contains(error_of([&] { read_json_file(folder.path(), "op"); }), "not a regular file"));
    CHECK(contains(error_of([&] { read_json_file(folder / "list.json", "op", 2); }),
                   "has 3 bytes; at most 2"));
    CHECK(contains(error_of([&] { read_json_object(folder / "list.json", "op"); }),
                   "a list of 1; expected an object"));
  }

  TEST_CASE("typed fields return what is there") {
    const json object = {{"i", -5},
                         {"d", 2.5},
                         {"b", true},
                         {"s", "text"},
                         {"n", nullptr},
                         {"l", {"x", "y"}},
                         {"torch_dtype", "f16"},
                         {"eos", {1, 2}},
                         {"one", 7},
                         {"o", {{"k", 1}}}};
    Problems problems("op", "file.json");
    CHECK(get_int(object, "i", problems) == -5);
    CHECK(get_double(object, "i", problems) == -5.0);
    CHECK(get_double(object, "d", problems) == 2.5);
    CHECK(get_bool(object, "b", problems));
    CHECK(get_string(object, {"dtype", "torch_dtype"}, problems) == "f16");
    CHECK(*find_strings(object, "l", problems) == std::vector<std::string>{"x", "y"});
    CHECK(*find_ints(object, "eos", problems) == std::vector<std::int64_t>{1, 2});
    CHECK(*find_ints(object, "one", problems) == std::vector<std::int64_t>{7});
    CHECK(find_object(object, "o", problems)->at("k") == 1);
    CHECK_FALSE(find_int(object, "n", problems));
    CHECK_FALSE(find_object(object, "absent", problems));
    CHECK(get_int_or(object, "n", problems, 3) == 3);
    CHECK(get_double_or(object, "absent", problems, 0.5) == 0.5);
    CHECK(get_bool_or(object, "absent", problems, true));
    CHECK(get_string_or(object, "absent", problems, "y") == "y");
    CHECK(problems.empty());
  }

  TEST_CASE("a newer name wins over an older one, and a null one counts as absent") {
    Problems problems("op", "file.json");
    CHECK(get_string(json{{"dtype", "a"}, {"torch_dtype", "b"}}, {"dtype", "torch_dtype"},
                     problems) == "a");
    CHECK(get_string(json{{"dtype", nullptr}, {"torch_dtype", "b"}}, {"dtype", "torch_dtype"},
                     problems) == "b");
    CHECK(problems.empty());
  }

  TEST_CASE(
      "every wrong field is one problem that names it, what was found and what was expected") {
    const json object = {{"i", 2.0},    {"r", 0},        {"d", "x"}, {"b", 1},
                         {"s", {1}},    {"l", {"x", 5}}, {"o", 3},   {"big", 18446744073709551615u},
                         {"e", {1, -2}}};
    Problems problems("op", "file.json");
    get_int(object, "i", problems);
    CHECK(get_int(object, "r", problems, 1, 10) == 1);
    get_int(object, "big", problems);
    get_double(object, "d", problems, 0, 1);
    get_bool(object, "b", problems);
    get_string(object, "s", problems);
    find_strings(object, "l", problems);
    find_object(object, "o", problems);
    find_ints(object, "e", problems, 0);
    get_int(object, {"new", "old"}, problems, 1);
    get_string(object, "missing", problems);
    const std::string message = problems_of(problems);
    CHECK(contains(message, "file.json: 11 problems"));
    CHECK(contains(message, "i is 2.0; expected an integer"));
    CHECK(contains(message, "r is 0; expected an integer from 1 to 10"));
    CHECK(contains(message, "big is 18446744073709551615; expected an integer"));
    CHECK(contains(message, "d is \"x\"; expected a number from 0.0 to 1.0"));
    CHECK(contains(message, "b is 1; expected true or false"));
    CHECK(contains(message, "s is a list of 1; expected a string"));
    CHECK(contains(message, "l: element 1 is 5; expected a list of strings"));
    CHECK(contains(message, "o is 3; expected an object"));
    CHECK(contains(message, "e is -2; expected an integer of at least 0 or a list of them"));
    CHECK(contains(message, "new (or old) is missing; expected an integer of at least 1"));
    CHECK(contains(message, "missing is missing; expected a string"));
  }

  TEST_CASE("a long value is cut in a message, between characters") {
    std::string text;
    for (int i = 0; i < 50; ++i) text += "é";
    const std::string shown = describe(json(text));
    CHECK(shown.size() < 80);
    CHECK(shown.ends_with("é…\""));
  }
}
