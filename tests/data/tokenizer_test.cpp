// tokenizer.hpp: ids, spans and text on the small committed tokenizers.
#include <lorapp/data/tokenizer.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

#include <random>
#include <thread>

using namespace lorapp;
using data_test::from_hex;
using data_test::goldens;
using data_test::tokenizer_dir;

namespace {

const Tokenizer& tokenizer(const std::string& name) {
  static const Tokenizer llama_like = Tokenizer::from_pretrained(tokenizer_dir("llama_like"));
  static const Tokenizer normalizing = Tokenizer::from_pretrained(tokenizer_dir("normalizing"));
  static const Tokenizer bare = Tokenizer::from_pretrained(tokenizer_dir("bare"));
  return name == "llama_like" ? llama_like : name == "normalizing" ? normalizing : bare;
}

std::string stream(const Tokenizer& t, const std::vector<int64_t>& ids, bool skip) {
  Tokenizer::StreamDecoder decoder(t, skip);
  std::string text;
  for (const int64_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

// Random text: words, white space, marks and characters of one to four bytes.
std::string random_text(std::mt19937& random, bool valid) {
  static const std::vector<std::string> parts = {
      "The",         " river", "house", " ", "  ", "\n",      "\t", "0",
      "42",          ".",      "é",     "ß", "日", "本",      "€",  "😀",
      "👩‍👧", "\x01",   "</s>",  "a", "z",  "e\u0301", "ﬁ",  "㎏"};
  static const std::vector<std::string> broken = {"\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98",
                                                  "\x80"};
  std::string text;
  for (int n = static_cast<int>(random() % 12); n > 0; --n) {
    text += !valid && random() % 4 == 0 ? broken[random() % broken.size()]
                                        : parts[random() % parts.size()];
  }
  return text;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE(
      "tokenizer: ids equal those of the Python sentencepiece package, invalid UTF-8 included") {
    for (const auto& golden : goldens()["encode"]) {
      const auto& t = tokenizer(golden["tokenizer"].get<std::string>());
      const std::string text = from_hex(golden["hex"].get<std::string>());
      CAPTURE(golden["tokenizer"].get<std::string>());
      CAPTURE(text);
      const auto want = golden["ids"].get<std::vector<int64_t>>();
      CHECK(t.encode(text, false) == want);
      CHECK(t.encode_with_spans(text, false).ids == want);
    }
  }

  TEST_CASE("tokenizer: decode and the stream give Hugging Face's text for the same ids") {
    const auto& t = tokenizer("llama_like");
    for (const auto& golden : goldens()["decode"]) {
      const auto ids = golden["ids"].get<std::vector<int64_t>>();
      CAPTURE(golden["ids"].dump());
      CHECK(t.decode(ids, false) == golden["text"].get<std::string>());
      CHECK(t.decode(ids, true) == golden["without_special"].get<std::string>());
      CHECK(stream(t, ids, false) == t.decode(ids, false));
      CHECK(stream(t, ids, true) == t.decode(ids, true));
    }
  }

  TEST_CASE("tokenizer: special tokens written in a text count only where they are asked for") {
    const auto& t = tokenizer("llama_like");
    for (const auto& golden : goldens()["encode_with_special"]) {
      const auto text = golden["text"].get<std::string>();
      CAPTURE(text);
      CHECK(t.encode_with_special(text) == golden["ids"].get<std::vector<int64_t>>());
    }
    for (const int64_t id : t.encode("</s><s><|end|><unk>", false)) CHECK_FALSE(t.is_special(id));
    CHECK(t.encode("</s>").front() == *t.bos_id());
    CHECK(t.encode("the <tool>", false).back() ==
          421);  // added, but not special: found in any text
  }

  TEST_CASE("tokenizer: bos and eos are added as the configuration says") {
    const auto& t = tokenizer("llama_like");
    CHECK(t.add_bos());
    CHECK_FALSE(t.add_eos());
    CHECK(t.encode("") == std::vector<int64_t>{1});
    CHECK(t.encode("", false).empty());
    CHECK(t.encode_with_spans("a", true).spans.front() ==
          std::pair<std::size_t, std::size_t>{0, 0});
    CHECK(t.bos_id() == 1);
    CHECK(t.eos_id() == 2);
    CHECK(t.unk_id() == 0);
    CHECK(t.pad_id() == 2);  // none is declared, so eos
    CHECK(t.vocab_size() == 422);
    CHECK(t.id_to_token(420) == "<|end|>");
    CHECK(t.token_to_id("<|end|>") == 420);
    CHECK(t.token_to_id("<0x0A>") == t.encode("\n", false).back());
    CHECK_FALSE(t.token_to_id("no such token").has_value());
    CHECK_THROWS_AS((void)t.id_to_token(422), Error);
    CHECK_THROWS_AS((void)t.decode({-1}), Error);
    CHECK(t.is_special(420));
    CHECK_FALSE(t.is_special(421));
  }

  TEST_CASE("tokenizer: decode(encode(text)) is the text") {
    std::mt19937 random(1);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random, true);
      CAPTURE(text);
      CHECK(tokenizer("llama_like").decode(tokenizer("llama_like").encode(text)) == text);
    }
    const std::string spaces = "  a  b  \n ";
    CHECK(tokenizer("llama_like").decode(tokenizer("llama_like").encode(spaces)) == spaces);
    CHECK(tokenizer("bare").decode(tokenizer("bare").encode(" a river ")) == " a river ");
  }

  TEST_CASE("tokenizer: spans of a model without normalisation cover the text once, in order") {
    std::mt19937 random(2);
    for (const bool valid : {true, false}) {
      for (int i = 0; i < 2000; ++i) {
        const std::string text = random_text(random, valid);
        CAPTURE(text);
        const auto encoding = tokenizer("llama_like").encode_with_spans(text, false);
        REQUIRE(encoding.ids.size() == encoding.spans.size());
        std::size_t covered = 0;
        bool whole_bytes = true;
        for (std::size_t k = 0; k < encoding.ids.size(); ++k) {
          const auto [begin, end] = encoding.spans[k];
          REQUIRE(begin <= end);
          REQUIRE(end <= text.size());
          REQUIRE(begin <= covered);  // no gap
          whole_bytes = whole_bytes && (begin == covered);
          covered = std::max(covered, end);
        }
        CHECK(covered == text.size());
        if (valid) CHECK(whole_bytes);  // a partition: joined, the spans are the text
      }
    }
  }

  TEST_CASE("tokenizer: a token's bytes are the text at its span") {
    const auto& t = tokenizer("llama_like");
    const std::string text = "The river\n日 😀 café";
    const auto encoding = t.encode_with_spans(text, false);
    for (std::size_t k = 0; k < encoding.ids.size(); ++k) {
      const auto [begin, end] = encoding.spans[k];
      std::string written = t.id_to_token(encoding.ids[k]);
      if (written.starts_with("<0x")) {
        CHECK(end == begin + 1);
        CHECK(static_cast<unsigned char>(text[begin]) ==
              std::stoi(written.substr(3, 2), nullptr, 16));
        continue;
      }
      for (std::size_t at; (at = written.find("▁")) != std::string::npos;)
        written = written.substr(0, at) + ' ' + written.substr(at + 3);
      if (k == 0) written.erase(0, 1);
      CHECK(text.substr(begin, end - begin) == written);
    }
  }

  TEST_CASE(
      "tokenizer: spans under normalisation stay in order and point at the original characters") {
    const auto& t = tokenizer("normalizing");
    std::mt19937 random(3);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random, i % 2 == 0);
      CAPTURE(text);
      const auto encoding = t.encode_with_spans(text, false);
      std::size_t begin = 0, end = 0;
      for (const auto& span : encoding.spans) {
        CHECK(span.first <= span.second);
        CHECK(span.first >= begin);
        CHECK(span.second >= end);
        CHECK(span.second <= text.size());
        begin = span.first;
        end = span.second;
      }
    }
    // é is spelled in two byte tokens, but stands as e + accent (3 bytes) in the text: neither
    // token is without a place.
    const auto accent = t.encode_with_spans("e\u0301", false);
    REQUIRE(accent.ids.size() >= 2);
    CHECK(accent.spans.back() == std::pair<std::size_t, std::size_t>{0, 3});
    CHECK(accent.spans[accent.spans.size() - 2].second > 0);
  }

  TEST_CASE(
      "tokenizer: the stream hands out whole characters only, and can be used again after finish") {
    const auto& t = tokenizer("llama_like");
    Tokenizer::StreamDecoder decoder(t);
    const auto ids = t.encode("a😀", false);
    std::vector<std::string> parts;
    for (const int64_t id : ids) parts.push_back(decoder.push(id));
    for (std::size_t i = ids.size() - 4; i < ids.size(); ++i) CHECK(parts[i].empty());
    CHECK(decoder.finish() == "😀");
    std::string again;
    for (const int64_t id : t.encode("The river", false)) again += decoder.push(id);
    CHECK(again + decoder.finish() == "The river");
  }

  TEST_CASE("tokenizer: threads that share one tokenizer get the same ids") {
    const auto& t = tokenizer("llama_like");
    std::mt19937 random(4);
    std::vector<std::string> texts;
    std::vector<std::vector<int64_t>> want;
    for (int i = 0; i < 200; ++i) {
      texts.push_back(random_text(random, false) + "<|end|> the");
      want.push_back(t.encode_with_special(texts.back()));
    }
    const Tokenizer fresh = Tokenizer::from_pretrained(tokenizer_dir("llama_like"));
    std::vector<int> wrong(4, 0);
    std::vector<std::thread> threads;
    for (int& count : wrong) {
      threads.emplace_back([&] {
        for (std::size_t i = 0; i < texts.size(); ++i)
          count += fresh.encode_with_special(texts[i]) != want[i];
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const int count : wrong) CHECK(count == 0);
  }
}
