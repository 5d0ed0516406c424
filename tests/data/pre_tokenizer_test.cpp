// The pre-tokenizers of a tokenizer.json and their regular expressions, against the Python package
// tokenizers; what hostile expressions do.
#include <lorapp/data/regex.hpp>
#include <lorapp/data/splitter.hpp>
#include <lorapp/data/tokenizer.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <random>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;
using data_test::TemporaryFolder;
using lorapp::detail::Regex;
using lorapp::detail::RegexError;
using nlohmann::json;

namespace {

const json& split_goldens() {
  static const json value =
      json::parse(lorapp::test::read_file(data_test::source_dir() / "pre_tokenizer_goldens.json"));
  return value;
}

std::vector<std::size_t> pieces(const lorapp::detail::Splitter& splitter, const std::string& text) {
  std::vector<std::size_t> places;
  splitter.split(text, 0, text.size(), [&](std::size_t begin, std::size_t end) {
    places.push_back(begin);
    places.push_back(end);
  });
  return places;
}

std::string regex_error(const std::string& pattern) {
  try {
    (void)Regex(pattern);
  } catch (const RegexError& error) {
    return error.what();
  }
  return {};
}

// The matches in a text, joined by "|".
std::string matches(const std::string& pattern, const std::string& text) {
  const Regex regex(pattern);
  Regex::Search search(regex, text);
  std::string joined;
  for (auto match = search.next(0); match; match = search.next(match->end))
    joined += (joined.empty() ? "" : "|") + text.substr(match->begin, match->end - match->begin);
  return joined;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("pre-tokenizer: the ids of each family equal those of the Python package") {
    const json base = json::parse(
        lorapp::test::read_file(data_test::tokenizer_dir("json_llama3") / "tokenizer.json"));
    const auto& texts = split_goldens()["texts"];
    CHECK(split_goldens()["families"].size() >= 14);
    for (const auto& family : split_goldens()["families"]) {
      CAPTURE(family["name"].get<std::string>());
      json file = base;
      file["pre_tokenizer"] = family["pre_tokenizer"];
      file["post_processor"] = nullptr;
      const TemporaryFolder folder;
      folder.write("tokenizer.json", file.dump());
      const Tokenizer t = Tokenizer::from_pretrained(folder.path());
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto text = texts[i].get<std::string>();
        CAPTURE(text);
        const auto ids = family["ids"][i].get<std::vector<int64_t>>();
        CHECK(t.encode(text, false) == ids);
        CHECK(t.encode_with_spans(text, false).ids == ids);
      }
    }
  }

  TEST_CASE("regex: matches are those of Oniguruma") {
    const auto& texts = split_goldens()["texts"];
    for (const auto& golden : split_goldens()["patterns"]) {
      const auto pattern = golden["pattern"].get<std::string>();
      CAPTURE(pattern);
      const lorapp::detail::Splitter splitter{Regex(pattern)};
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const auto text = texts[i].get<std::string>();
        CAPTURE(text);
        CHECK(pieces(splitter, text) == golden["pieces"][i].get<std::vector<std::size_t>>());
      }
    }
  }

  TEST_CASE("regex: the hand-written patterns cut as their expressions do") {
    const auto& texts = split_goldens()["texts"];
    for (const auto& known : lorapp::detail::kKnownSplits) {
      CAPTURE(known.name);
      const lorapp::detail::Splitter fast(known.pattern);
      const lorapp::detail::Splitter slow{Regex(known.regex)};
      for (const auto& text : texts)
        CHECK(pieces(fast, text.get<std::string>()) == pieces(slow, text.get<std::string>()));
    }
  }

  TEST_CASE("regex: alternatives are taken in order, and quantifiers as they are written") {
    CHECK(matches("a|ab", "ab") == "a");
    CHECK(matches("(?:a|ab)c", "abc") == "abc");
    CHECK(matches("a{2,3}", "aaaaa") == "aaa|aa");
    CHECK(matches("a{2,3}?", "aaaaa") == "aa|aa");
    CHECK(matches("a*+a", "aaa") == "");
    CHECK(matches("(?>a*)b", "aab") == "aab");
    CHECK(matches("\\s+(?!\\S)", "a   b  ") == "  |  ");
    CHECK(matches("(?i:'ll)", "'LL 'Ll 'lx") == "'LL|'Ll");
  }

  TEST_CASE("regex: what is not supported is named, with its place") {
    CHECK(contains(regex_error("a(?P<x>b)"), "the group (?P<…) is not supported (at byte 3"));
    CHECK(contains(regex_error("(a)\\1"), "\\1 is not supported"));
    CHECK(
        contains(regex_error("\\p{Han}+"), "\\p{Han} is not supported; supported are categories"));
    CHECK(contains(regex_error("[[:alpha:]]"), "a set within a set is not supported"));
    CHECK(contains(regex_error("[\\w&&[^x]]"), "&& in a set is not supported"));
    CHECK(contains(regex_error("\\bx"), "\\b is not supported"));
    CHECK(contains(regex_error("a*"), "it may match nothing"));
    CHECK(contains(regex_error("x(?:a*)*"), "the repetition of something that matches nothing"));
    CHECK(contains(regex_error("a**"), "behind a repetition is not supported"));
    CHECK(contains(regex_error("(a"), "a '(' is not closed"));
    CHECK(contains(regex_error("a)"), "a ')' closes nothing"));
    CHECK(contains(regex_error("[a"), "a '[' is not closed"));
    CHECK(contains(regex_error("[z-a]"), "a range in a set is empty"));
    CHECK(contains(regex_error("*a"), "'*' repeats nothing"));
    CHECK(contains(regex_error("a{3,2}"), "a count goes from 3 to 2"));
    CHECK(contains(regex_error("a{9999}"), "a count is above 1000"));
    CHECK(contains(regex_error("a{x}"), "begins no count"));
    CHECK(contains(regex_error("(?i)straße"), "(?i) with"));
    CHECK(contains(regex_error("(?i:first)"), "ss or st, which other characters fold to"));
    CHECK(contains(regex_error("(?<=ab)c"), "of more than one character is not supported"));
    CHECK(contains(regex_error("\\x{110000}"), "names no character"));
    CHECK(contains(regex_error("a\xff"), "it is not UTF-8"));
    CHECK(contains(regex_error(std::string(60, '(') + "a" + std::string(60, ')')),
                   "nested deeper than 50"));
    CHECK(contains(regex_error(std::string(10000, 'a')), "expected at most 8192"));
    CHECK(contains(regex_error("(?:(?:ab){1000}){1000}"), "takes more than 8192 steps"));
    json file = json::parse(
        lorapp::test::read_file(data_test::tokenizer_dir("json_llama3") / "tokenizer.json"));
    file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(a)\\1|b";
    const TemporaryFolder folder;
    folder.write("tokenizer.json", file.dump());
    const std::string message = error_of([&] { (void)Tokenizer::from_pretrained(folder.path()); });
    CHECK(contains(message, "pre_tokenizer.pretokenizers[0].pattern"));
    CHECK(contains(message, "\\1 is not supported"));
  }

  TEST_CASE("regex: expressions that explode elsewhere end here, in a match or an error") {
    const std::string many(3000, 'a');
    for (const char* pattern :
         {"(?:a+)+b", "(?:a|a)+b", "(?:a|ab|aab)+c", "(?:(?:a+)+)+b", "a+a+a+a+b",
          "(?:a?){1,30}a{30}b", "(?:aa|aaa)+b", "(?:x+x+)+y|a"}) {
      CAPTURE(pattern);
      const Regex regex(pattern);
      const auto start = std::chrono::steady_clock::now();
      try {
        Regex::Search search(regex, many);
        for (auto match = search.next(0); match; match = search.next(match->end)) {
        }
      } catch (const RegexError& error) {
        CHECK(contains(error.what(), "too many steps"));
      }
      const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
      CHECK(time.count() < 30);
    }
  }

  TEST_CASE("regex: mutated expressions give pieces that cover the text, or a RegexError") {
    std::vector<std::string> seeds;
    for (const auto& golden : split_goldens()["patterns"])
      seeds.push_back(golden["pattern"].get<std::string>());
    for (const auto& known : lorapp::detail::kKnownSplits) seeds.emplace_back(known.regex);
    const std::vector<std::string> parts = {"(",   ")",     "[",   "]",    "|",   "*",      "+",
                                            "?",   "{1,3}", "{",   "}",    "\\",  "^",      "$",
                                            "(?:", "(?=",   "(?!", "(?i)", "(?>", "\\p{L}", "\\s",
                                            "-",   "a",     "é",   "\xff", ".",   "\\S",    "[^"};
    const std::string text = "The river's 12345 rivers\n\n  naïve café 日本 a+b=c   ";
    std::mt19937 random(5);
    std::size_t good = 0;
    for (int i = 0; i < 6000; ++i) {
      std::string pattern = seeds[random() % seeds.size()];
      for (int n = static_cast<int>(random() % 3) + 1; n > 0; --n) {
        const std::size_t at = random() % (pattern.size() + 1);
        if (random() % 3 == 0) {
          pattern.erase(at, random() % 5);
        } else {
          pattern.insert(at, parts[random() % parts.size()]);
        }
      }
      CAPTURE(pattern);
      try {
        const lorapp::detail::Splitter splitter{Regex(pattern)};
        std::size_t end = 0;
        const auto places = pieces(splitter, text);
        for (std::size_t k = 0; k < places.size(); k += 2) {
          CHECK(places[k] == end);
          CHECK(places[k + 1] > end);
          end = places[k + 1];
        }
        CHECK(end == text.size());
        ++good;
      } catch (const RegexError& error) {
        CHECK(std::string(error.what()).size() > 5);
      }
    }
    CHECK(good > 1000);
  }
}
