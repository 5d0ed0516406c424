// chat_template.hpp: what broken and hostile templates do, and templates changed at random.
#include "chat_support.hpp"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace lorapp;
using data_test::chat_goldens;
using data_test::contains;
using data_test::error_in;

TEST_SUITE("data") {
  TEST_CASE("chat template: an error names the line and what was found") {
    CHECK(contains(error_in("a\n{% for x y %}"), "t, line 2: found 'y', expected in"));
    CHECK(contains(error_in("\n\n{{ x | shout }}"),
                   "line 3: there is no filter 'shout'; supported: abs"));
    CHECK(contains(error_in("{{ x is odd_one }}"), "there is no test 'odd_one'; supported: =="));
    CHECK(contains(error_in("{% include 'x' %}"),
                   "{% include %} is not supported; supported: if, for"));
    CHECK(contains(error_in("{% if a %}\n{% for b in c %}"),
                   "line 2: a block is not closed; expected {% endfor %}"));
    CHECK(contains(error_in("{{ a\n"), "line 1: a tag is not closed by }}"));
    CHECK(contains(error_in("{{ \"a }}"), "a string is not closed"));
    CHECK(contains(error_in("{{ a ? b }}"), "'?' has no meaning here"));
    CHECK(contains(error_in("{{ (a] }}"), "']' closes nothing; expected ')'"));
    CHECK(contains(error_in("{{ 99999999999999999999 }}"), "is out of range"));
    CHECK(contains(error_in("x\n{{ raise_exception('No.') }}"),
                   "line 2: the template does not accept this: No."));
    CHECK(contains(error_in("{{ messages[5].role }}"),
                   "cannot read '.role' of an item of a list, which is not defined"));
    CHECK(contains(error_in("{{ messages.role.x }}"), "'role' of a list, which is not defined"));
    CHECK(contains(error_in("{{ 1 + 'a' }}"), "cannot compute an integer + a string"));
    CHECK(contains(error_in("{{ nothing(1) }}"), "cannot call 'nothing', which is not defined"));
    CHECK(contains(error_in("{{ 9223372036854775807 + 1 }}"), "an integer is too large"));
    CHECK(contains(error_in("{% set messages.x = 1 %}"), "expected a namespace"));
    CHECK(contains(error_in("{{ strftime_now('%Q') }}"), "%Q is not supported"));
    CHECK(contains(error_in("{{ 1 }}", {}), "the conversation has no messages"));
    CHECK(contains(error_in(std::string(2 << 20, 'x')), "expected at most 1048576"));
  }

  TEST_CASE("chat template: hostile templates end soon, in an error") {
    const std::vector<std::pair<std::string, std::string>> hostile = {
        {"{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
         "does more than"},
        {"{% for a in range(9999999999) %}x{% endfor %}", "does more than"},
        {"{{ 'x' * 999999999999 }}", "is repeated"},
        {"{{ ('x' * 1000000) * 1000000 }}", "does more than"},
        {"{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% "
         "endfor %}",
         "does more than"},
        {"{% set ns = namespace(s=[]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% "
         "endfor %}",
         "nested deeper"},
        {"{% set ns = namespace(s=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] %}{% "
         "endfor %}{{ ns.s }}",
         "does more than"},
        {"{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(90) %}{% set ns.s = [ns.s, ns.s] "
         "%}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
         "does more than"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deeper than"},
        {"{% set ns = namespace() %}{% set ns.ns = ns %}{{ ns }}", "cannot write a namespace"},
        {"{{ " + std::string(100000, '(') + "1" + std::string(100000, ')') + " }}",
         "nested deeper"},
        {"{{ " + std::string(100000, '[') + std::string(100000, ']') + " }}", "nested deeper"},
        {"{{ " + std::string(100000, '-') + "1 }}", "nested deeper"},
        {"{{ 1" +
             [] {
               std::string s;
               for (int i = 0; i < 50000; ++i) s += "+1";
               return s;
             }() +
             " }}",
         "nested deeper"},
        {"{{ x" +
             [] {
               std::string s;
               for (int i = 0; i < 50000; ++i) s += ".x";
               return s;
             }() +
             " }}",
         "nested deeper"},
        {[] {
           std::string s;
           for (int i = 0; i < 50000; ++i) s += "{% if 1 %}";
           return s;
         }(),
         "nested deeper"},
        {"{{ 'a'|replace('', 'x' * 1000000)|replace('', 'x' * 1000000) }}", "does more than"},
        {"{{ 'x'|indent(999999999999) }}", "expected 0 to 256"},
        {"{{ 2 ** 99999999999 }}", "too large"},
        {"{{ range(3)[::0] }}", "is 0"},
    };
    for (const auto& [source, expected] : hostile) {
      const std::string error = error_in(source);
      const std::string beginning = source.substr(0, 100);  // clang 14 captures no binding
      CAPTURE(beginning);
      CAPTURE(error);
      CHECK(contains(error, expected));
      CHECK(error.size() < 2000);
    }
  }

  TEST_CASE("chat template: mutated templates give a text or an Error, and nothing else") {
    std::vector<std::string> seeds;
    for (const auto& golden : chat_goldens()["snippets"])
      seeds.push_back(golden["source"].get<std::string>());
    for (const auto& golden : chat_goldens()["templates"])
      if (!golden["source"].is_null()) seeds.push_back(golden["source"].get<std::string>());
    const std::vector<std::string> parts = {"{%",         "%}",
                                            "{{",         "}}",
                                            "{#",         "#}",
                                            "-",          "(",
                                            ")",          "[",
                                            "]",          "'",
                                            "\"",         "|",
                                            ".",          ",",
                                            "~",          " is ",
                                            " in ",       " not ",
                                            "if",         "else",
                                            "endif",      "for x in messages",
                                            "endfor",     "set x = ",
                                            "loop.index", "messages",
                                            "none",       "|list",
                                            "|tojson",    "|trim",
                                            "[::-1]",     "[1:]",
                                            "9999999999", "0",
                                            "-1",         "\xff",
                                            "\xc3",       "é",
                                            "\n",         "macro",
                                            "generation", "namespace()",
                                            "range(5)",   "|map(attribute='role')",
                                            ".split()",   "|sort",
                                            "|string",    "**",
                                            "//"};
    std::mt19937 random(7);
    const std::vector<ChatMessage> chat = {{.role = "user", .content = "a\xff b"},
                                           {.role = "assistant", .content = "c\n"}};
    std::size_t rendered = 0;
    for (int i = 0; i < 6000; ++i) {
      std::string source = seeds[random() % seeds.size()];
      for (int n = static_cast<int>(random() % 4) + 1; n > 0; --n) {
        const std::size_t at = source.empty() ? 0 : random() % source.size();
        switch (random() % 4) {
          case 0:
            source.erase(at, random() % 6);
            break;
          case 1: {
            const std::string& other = seeds[random() % seeds.size()];
            const std::size_t from = other.empty() ? 0 : random() % other.size();
            source.insert(at, other.substr(from, random() % 40));
            break;
          }
          default:
            source.insert(at, parts[random() % parts.size()]);
        }
      }
      CAPTURE(source);
      try {
        const auto result = ChatTemplate::from_string("t", source, {}).render(chat);
        std::size_t end = 0;
        for (const auto& span : result.answers) {
          CHECK(span.begin >= end);
          CHECK(span.begin < span.end);
          end = span.end;
        }
        CHECK(end <= result.text.size());
        ++rendered;
      } catch (const Error& error) {
        CHECK(contains(error.what(), "[chat_template]"));
      }
    }
    CHECK(rendered > 500);
  }
}
