// tokenizer.json: ids, spans and text against the Python package tokenizers, on small committed
// tokenizers of each family.
#include <lorapp/data/tokenizer.hpp>

#include <lorapp/data/unicode.hpp>
#include "data_support.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

using namespace lorapp;
using data_test::from_hex;
using data_test::tokenizer_dir;
using Span = std::pair<std::size_t, std::size_t>;

namespace {

constexpr const char* kNames[] = {"json_gpt2",   "json_llama3",  "json_qwen2",
                                  "json_llama2", "json_mistral", "json_plain"};

const Tokenizer& tokenizer(const std::string& name) {
  static std::map<std::string, Tokenizer> loaded;
  const auto it = loaded.find(name);
  if (it != loaded.end()) return it->second;
  return loaded.emplace(name, Tokenizer::from_pretrained(tokenizer_dir(name))).first->second;
}

const nlohmann::json& json_goldens() {
  static const nlohmann::json value = nlohmann::json::parse(
      lorapp::test::read_file(data_test::source_dir() / "tokenizer_json_goldens.json"));
  return value;
}

std::vector<int64_t> ids_of(const nlohmann::json& golden) {
  return golden["ids"].get<std::vector<int64_t>>();
}

// The place of the characters that a span touches; a byte that is not UTF-8 is one of its own.
Span whole_characters(const std::string& text, Span span) {
  Span wide = span;
  for (std::size_t at = 0; at < text.size();) {
    const auto step = lorapp::detail::utf8_step(text, at);
    const std::size_t end = at + (step.valid() ? step.length : 1);
    if (at < span.first && span.first < end) wide.first = at;
    if (at < span.second && span.second < end) wide.second = end;
    at = end;
  }
  return wide;
}

uint64_t fnv1a(const std::vector<int64_t>& ids) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const int64_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8)
      hash = (hash ^ ((static_cast<uint64_t>(id) >> shift) & 0xff)) * 0x100000001b3u;
  }
  return hash;
}

std::string stream(const Tokenizer& t, const std::vector<int64_t>& ids, bool skip) {
  Tokenizer::StreamDecoder decoder(t, skip);
  std::string text;
  for (const int64_t id : ids) {
    const std::string part = decoder.push(id);
    CHECK(lorapp::detail::is_utf8(part));
    text += part;
  }
  return text + decoder.finish();
}

std::string random_text(std::mt19937& random, bool valid) {
  static const std::vector<std::string> parts = {
      "The", " river", " ",  "  ",   "\n", "\r\n",    "\t", "0",    "1234", "'ll", "'S", ".",
      "é",   "ß",      "日", "café", "😀",  "e\u0301", "한", "\x01", "</s>", "<s>", "!!", "▁"};
  static const std::vector<std::string> broken = {"\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98",
                                                  "\x80"};
  std::string text;
  for (int n = static_cast<int>(random() % 14); n > 0; --n) {
    text += !valid && random() % 4 == 0 ? broken[random() % broken.size()]
                                        : parts[random() % parts.size()];
  }
  return text;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("tokenizer.json: ids equal those of the Python package, invalid UTF-8 included") {
    std::set<std::string> seen;
    for (const auto& golden : json_goldens()["encode"]) {
      const auto name = golden["tokenizer"].get<std::string>();
      const std::string text = from_hex(golden["hex"].get<std::string>());
      CAPTURE(name);
      CAPTURE(text);
      seen.insert(name);
      CHECK(tokenizer(name).encode(text, false) == ids_of(golden));
      CHECK(tokenizer(name).encode_with_spans(text, false).ids == ids_of(golden));
    }
    CHECK(seen.size() == std::size(kNames));
  }

  TEST_CASE("tokenizer.json: spans are the Python package's offsets, in bytes") {
    for (const auto& golden : json_goldens()["encode"]) {
      const auto name = golden["tokenizer"].get<std::string>();
      const std::string text = from_hex(golden["hex"].get<std::string>());
      CAPTURE(name);
      CAPTURE(text);
      const auto spans = tokenizer(name).encode_with_spans(text, false).spans;
      REQUIRE(2 * spans.size() == golden["spans"].size());
      for (std::size_t i = 0; i < spans.size(); ++i) {
        const Span want = {golden["spans"][2 * i].get<std::size_t>(),
                           golden["spans"][2 * i + 1].get<std::size_t>()};
        if (spans[i].first == spans[i].second) {
          // Only the space that is put before a text stands for nothing; the reference gives it the
          // character behind it.
          CHECK(spans[i].first == want.first);
          continue;
        }
        const Span found = whole_characters(text, spans[i]);
        if (golden["composed"].get<bool>()) {
          // A composed character stands for all it was made of; the reference names the first part.
          CHECK(found.first <= want.first);
          CHECK(found.second >= want.second);
        } else {
          CHECK(found == want);
        }
      }
    }
  }

  TEST_CASE("tokenizer.json: long texts of one kind have the Python package's ids") {
    for (const auto& golden : json_goldens()["repeated"]) {
      const auto name = golden["tokenizer"].get<std::string>();
      const std::string unit = from_hex(golden["hex"].get<std::string>());
      CAPTURE(name);
      CAPTURE(unit);
      std::string text;
      for (int i = golden["times"].get<int>(); i > 0; --i) text += unit;
      const auto ids = tokenizer(name).encode(text, false);
      CHECK(ids.size() == golden["count"].get<std::size_t>());
      CHECK(std::to_string(fnv1a(ids)) == golden["fnv1a"].get<std::string>());
    }
  }

  TEST_CASE("tokenizer.json: added tokens and the template give the Python package's ids") {
    for (const auto& golden : json_goldens()["with_special"]) {
      const auto name = golden["tokenizer"].get<std::string>();
      const std::string text = from_hex(golden["hex"].get<std::string>());
      CAPTURE(name);
      CAPTURE(text);
      CHECK(tokenizer(name).encode_with_special(text) == ids_of(golden));
    }
  }

  TEST_CASE("tokenizer.json: decode and the stream give the Python package's text") {
    for (const auto& golden : json_goldens()["decode"]) {
      const auto name = golden["tokenizer"].get<std::string>();
      const auto& t = tokenizer(name);
      CAPTURE(name);
      CAPTURE(golden["ids"].dump());
      CHECK(t.decode(ids_of(golden), false) == golden["text"].get<std::string>());
      CHECK(t.decode(ids_of(golden), true) == golden["without_special"].get<std::string>());
      CHECK(stream(t, ids_of(golden), false) == golden["text"].get<std::string>());
      CHECK(stream(t, ids_of(golden), true) == golden["without_special"].get<std::string>());
    }
  }

  TEST_CASE(
      "tokenizer.json: text that looks like a special token is plain unless asked otherwise") {
    const auto& t = tokenizer("json_llama3");
    const std::string text = "<|begin_of_text|>a<|eot_id|>";
    for (const int64_t id : t.encode(text, false)) CHECK_FALSE(t.is_special(id));
    const auto parsed = t.encode_with_special(text, false);
    CHECK(parsed.front() == t.bos_id());
    CHECK(parsed.back() == t.eos_id());
    CHECK(t.decode(parsed) == "a");
    CHECK(t.decode(parsed, false) == text);
    CHECK(t.decode(t.encode(text)) == text);
  }

  TEST_CASE("tokenizer.json: special ids come from the configuration and from the template") {
    const auto& llama3 = tokenizer("json_llama3");
    CHECK(llama3.add_bos());
    CHECK_FALSE(llama3.add_eos());
    CHECK(llama3.id_to_token(llama3.bos_id().value()) == "<|begin_of_text|>");
    CHECK(llama3.id_to_token(llama3.eos_id().value()) == "<|eot_id|>");
    CHECK(llama3.encode("").size() == 1);
    const auto& qwen2 = tokenizer("json_qwen2");
    CHECK_FALSE(qwen2.add_bos());
    CHECK_FALSE(qwen2.bos_id().has_value());
    CHECK(qwen2.id_to_token(qwen2.pad_id().value()) == "<|endoftext|>");
    CHECK(qwen2.token_to_id("<tool_call>").has_value());
    CHECK_FALSE(qwen2.is_special(*qwen2.token_to_id("<tool_call>")));
    // Without a tokenizer_config.json the template says what bos is.
    const auto& llama2 = tokenizer("json_llama2");
    CHECK(llama2.bos_id() == 1);
    CHECK_FALSE(llama2.eos_id().has_value());
    CHECK(llama2.unk_id() == 0);
    CHECK_FALSE(tokenizer("json_plain").add_bos());
    for (const char* name : kNames) {
      const auto& t = tokenizer(name);
      CHECK_THROWS_AS((void)t.id_to_token(t.vocab_size()), Error);
      CHECK_THROWS_AS((void)t.decode({-1}), Error);
    }
  }

  TEST_CASE("tokenizer.json: decode(encode(text)) is the text where nothing is normalized") {
    std::mt19937 random(1);
    for (int i = 0; i < 1000; ++i) {
      const std::string text = random_text(random, true);
      CAPTURE(text);
      for (const char* name : {"json_gpt2", "json_llama3"}) {
        CHECK(tokenizer(name).decode(tokenizer(name).encode(text)) == text);
      }
    }
  }

  TEST_CASE("tokenizer.json: spans lie in order, and cover a text that is encoded without loss") {
    std::mt19937 random(2);
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(random, i % 2 == 0);
      CAPTURE(text);
      for (const char* name : kNames) {
        CAPTURE(name);
        const auto encoding = tokenizer(name).encode_with_spans(text, false);
        REQUIRE(encoding.ids.size() == encoding.spans.size());
        std::size_t begin = 0, end = 0;
        for (const auto& span : encoding.spans) {
          CHECK(span.first <= span.second);
          CHECK(span.first >= begin);
          CHECK(span.first <= end);  // no gap
          CHECK(span.second >= end);
          begin = span.first;
          end = span.second;
        }
        CHECK(end == text.size());
      }
    }
  }

  TEST_CASE("tokenizer.json: each byte token of a character has its own byte") {
    const std::string text = "a😀";
    for (const char* name : {"json_mistral", "json_llama2"}) {
      const auto& t = tokenizer(name);
      const auto encoding = t.encode_with_spans(text, false);
      std::size_t bytes = 0;
      for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
        if (!t.id_to_token(encoding.ids[i]).starts_with("<0x")) continue;
        CHECK(encoding.spans[i].second == encoding.spans[i].first + 1);
        ++bytes;
      }
      if (bytes > 0) CHECK(bytes == 4);
    }
    // The composed character stands for the letter and its accent, in each of its tokens.
    for (const auto& span : tokenizer("json_qwen2").encode_with_spans("u\u0304", false).spans)
      CHECK(span == Span{0, 3});
  }

  TEST_CASE("tokenizer.json: NFC joins, orders and keeps characters as Unicode says") {
    using Codes = std::vector<std::uint32_t>;  // numbers, which a failure can print
    const auto nfc = [](const std::vector<char32_t>& given) {
      const auto codes = lorapp::detail::normalize_nfc(given);
      return Codes(codes.begin(), codes.end());
    };
    CHECK(nfc({'e', 0x301}) == Codes{0xe9});
    CHECK(nfc({'s', 0x307, 0x323}) == Codes{0x1e69});  // ordered, then joined twice
    CHECK(nfc({'q', 0x307, 0x323}) == Codes{'q', 0x323, 0x307});
    CHECK(nfc({0x1112, 0x1161, 0x11ab}) == Codes{0xd55c});  // Hangul by arithmetic
    CHECK(nfc({0xac00, 0x11a8}) == Codes{0xac01});
    CHECK(nfc({0x212b}) == Codes{0xc5});                    // a singleton
    CHECK(nfc({0x958}) == Codes{0x915, 0x93c});             // excluded from composition
    CHECK(nfc({'a', 0x300, 0x301}) == Codes{0xe0, 0x301});  // blocked: same class
    CHECK(nfc({0x301}) == Codes{0x301});
  }
}
