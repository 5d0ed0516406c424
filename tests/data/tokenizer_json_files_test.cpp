// tokenizer.json files that are broken, hostile or outside of what is supported: an error that
// names all of it, or a tokenizer that works.
#include <lorapp/data/tokenizer.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <random>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;
using data_test::read_file;
using data_test::TemporaryFolder;
using data_test::tokenizer_dir;
using nlohmann::json;

namespace {

json file_of(const std::string& name) {
  return json::parse(read_file(tokenizer_dir(name) / "tokenizer.json"));
}

Tokenizer load(const json& file, const std::string& config = {}) {
  const TemporaryFolder folder;
  folder.write("tokenizer.json", file.dump());
  if (!config.empty()) folder.write("tokenizer_config.json", config);
  return Tokenizer::from_pretrained(folder.path());
}

std::string error(const json& file, const std::string& config = {}) {
  return error_of([&] { (void)load(file, config); });
}

// A model of the letters a and b, and what is given of merges.
json letters(const json& vocab, const json& merges) {
  return {{"version", "1.0"}, {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", merges}}}};
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("tokenizer.json: one message names everything that is not supported") {
    json file = file_of("json_llama3");
    file["normalizer"] = {{"type", "Sequence"},
                          {"normalizers", {{{"type", "NFKC"}}, {{"type", "Lowercase"}}}}};
    file["pre_tokenizer"] = {
        {"type", "Sequence"},
        {"pretokenizers",
         {{{"type", "Split"}, {"pattern", {{"Regex", "(a)\\1+"}}}, {"behavior", "Isolated"}},
          {{"type", "UnicodeScripts"}}}}};
    file["post_processor"] = {{"type", "BertProcessing"}};
    file["decoder"] = {{"type", "WordPiece"}};
    file["model"]["dropout"] = 0.1;
    file["model"]["end_of_word_suffix"] = "</w>";
    const std::string message = error(file);
    CAPTURE(message);
    for (const char* part :
         {"NFKC", "Lowercase", "normalizer.normalizers[1]", "\\1 is not supported",
          "UnicodeScripts", "BertProcessing", "WordPiece", "dropout", "end_of_word_suffix"}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
    json unigram = file_of("json_mistral");
    unigram["model"]["type"] = "Unigram";
    CHECK(contains(error(unigram), "\"Unigram\", which is not supported"));
  }

  TEST_CASE("tokenizer.json: one message lists what is broken in the vocabulary and the merges") {
    json file = letters({{"a", 0}, {"b", 0}, {"c", -1}, {"d", 99999999}, {"e", "x"}, {"ab", 5}},
                        {"a b", "a", {"a", "z"}, 7, "a a a"});
    file["model"]["unk_token"] = "<unk>";
    file["added_tokens"] = {{{"id", 5}, {"content", "<x>"}}, {{"id", 1}}, 3};
    const std::string message = error(file);
    CAPTURE(message);
    for (const char* part :
         {"gives an id twice", "(3)", "99999999", "no pair of tokens (3)", "not in model.vocab",
          "<unk>", "which is \"ab\"", "without a \"content\""}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
  }

  TEST_CASE("tokenizer.json: an id that needs far more room than the file has tokens is refused") {
    for (const char* id :
         {"16777215", "4294967296", "9223372036854775807", "18446744073709551615", "1e30", "-1"}) {
      json file = letters({{"a", 0}}, json::array());
      file["model"]["vocab"]["b"] = json::parse(id);
      CHECK(contains(error(file), "model.vocab has ids"));
      json added = letters({{"a", 0}}, json::array());
      added["added_tokens"] = {{{"id", json::parse(id)}, {"content", "<b>"}}};
      CHECK(contains(error(added), "added_tokens"));
    }
    const json file = letters({{"a", 0}}, json::array());
    CHECK(contains(error(file, R"({"added_tokens_decoder": {"16000000": {"content": "<b>"}}})"),
                   "added_tokens_decoder"));
  }

  TEST_CASE("tokenizer.json: the template and the configuration have to agree on bos and eos") {
    const json file = file_of("json_mistral");
    CHECK(load(file).bos_id() == 1);
    CHECK(contains(error(file, R"({"bos_token": "</s>"})"), "bos_token is 2"));
    CHECK_FALSE(load(file, R"({"bos_token": "<s>", "add_bos_token": false})").add_bos());
    CHECK(load(file, R"({"eos_token": "</s>", "add_eos_token": true})").encode("a").back() == 2);
    json two = file;
    two["post_processor"]["single"].insert(two["post_processor"]["single"].begin(),
                                           two["post_processor"]["single"][0]);
    CHECK(contains(error(two), "post_processor.single"));
    json absent = file;
    absent["post_processor"]["special_tokens"]["<s>"]["ids"] = {9999};
    CHECK(contains(error(absent), "9999 is not in the vocabulary"));
  }

  TEST_CASE("tokenizer.json: a tokenizer.model beside it is the authority") {
    const TemporaryFolder folder;
    folder.write("tokenizer.json", "{}");
    data_test::fs::copy_file(tokenizer_dir("llama_like") / "tokenizer.model",
                             folder / "tokenizer.model");
    CHECK(Tokenizer::from_pretrained(folder.path()).vocab_size() == 420);
  }

  TEST_CASE("tokenizer.json: save_pretrained writes the same bytes, and the copy the same ids") {
    for (const char* name : {"json_qwen2", "json_llama2"}) {
      const Tokenizer t = Tokenizer::from_pretrained(tokenizer_dir(name));
      const TemporaryFolder target;
      t.save_pretrained(target / "copy");
      CHECK(read_file(target / "copy/tokenizer.json") ==
            read_file(tokenizer_dir(name) / "tokenizer.json"));
      CHECK(Tokenizer::from_pretrained(target / "copy").encode("The café 😀") ==
            t.encode("The café 😀"));
    }
  }

  TEST_CASE("tokenizer.json: cyclic merges and a vocabulary without most characters still encode") {
    const Tokenizer cyclic = load(letters({{"a", 0}, {"aa", 1}, {"aaa", 2}, {"aaaa", 3}},
                                          {"a a", "aa a", "a aa", "aa aa", "a aaa", "aaa a"}));
    CHECK(cyclic.encode(std::string(10, 'a'), false) == std::vector<int64_t>{3, 3, 1});
    CHECK(cyclic.encode("xyz", false).empty());  // no unk token: what is unknown vanishes
    CHECK(cyclic.encode(std::string(1 << 20, 'a'), false).size() == 1 << 18);
    json file = letters({{"a", 0}, {"?", 1}}, json::array());
    file["model"]["unk_token"] = "?";
    CHECK(load(file).encode("abb", false) == std::vector<int64_t>{0, 1, 1});
    file["model"]["fuse_unk"] = true;
    CHECK(load(file).encode("abb", false) == std::vector<int64_t>{0, 1});
    // Some of the byte tokens are there, but not all of a character's.
    file["model"]["byte_fallback"] = true;
    file["model"]["vocab"]["<0xC3>"] = 2;
    CHECK(load(file).encode("é", false) == std::vector<int64_t>{1});
    file["model"]["vocab"]["<0xA9>"] = 3;
    CHECK(load(file).encode("é", false) == std::vector<int64_t>{2, 3});
  }

  TEST_CASE("tokenizer.json: a normalizer that blows a text up is an error, not an allocation") {
    json file = letters({{"a", 0}}, json::array());
    json steps = json::array();
    for (int i = 0; i < 32; ++i) {
      steps.push_back(
          {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaaaaaaaaaa"}});
    }
    file["normalizer"] = {{"type", "Sequence"}, {"normalizers", steps}};
    const Tokenizer t = load(file);
    CHECK(contains(error_of([&] { (void)t.encode(std::string(1000, 'a')); }), "normalizer"));
    const json half = steps;
    for (const json& step : half) steps.push_back(step);
    file["normalizer"]["normalizers"] = steps;
    CHECK(contains(error(file), "64 steps"));
  }

  TEST_CASE("tokenizer.json: many added tokens with one beginning do not slow the search down") {
    json file = letters({{"a", 0}}, json::array());
    json added = json::array();
    std::string content;
    for (int i = 0; i < 2000; ++i) {
      content += 'a';
      added.push_back({{"id", i + 1}, {"content", content + "b"}, {"special", false}});
    }
    file["added_tokens"] = added;
    const Tokenizer t = load(file);
    CHECK(t.encode("xab", false) == std::vector<int64_t>{1});
    CHECK(t.encode(std::string(20000, 'a'), false).size() == 20000);
  }

  TEST_CASE("tokenizer.json: a damaged file is an error or a tokenizer, never a crash") {
    std::mt19937 random(7);
    int errors = 0, loaded = 0;
    for (const char* name : {"json_llama3", "json_llama2", "json_qwen2"}) {
      const json whole = file_of(name);
      const std::string bytes = whole.dump();
      const TemporaryFolder folder;
      const auto try_bytes = [&](const std::string& text) {
        folder.write("tokenizer.json", text);
        try {
          const Tokenizer t = Tokenizer::from_pretrained(folder.path());
          const auto ids = t.encode("The café\n 😀 <s></s> 123\xff");
          (void)t.decode(ids, false);
          ++loaded;
        } catch (const Error& problem) {
          CHECK(contains(problem.what(), "tokenizer"));
          ++errors;
        }
      };
      for (std::size_t size = 0; size < bytes.size(); size += 1511)
        try_bytes(bytes.substr(0, size));
      for (int i = 0; i < 60; ++i) {
        std::string changed = bytes;
        changed[random() % changed.size()] = static_cast<char>(random() % 128);
        try_bytes(changed);
      }
      // Each value in turn is replaced by something that it should not be.
      const json flat = whole.flatten();
      std::vector<std::string> paths;
      for (const auto& [path, value] : flat.items()) {
        if (!path.starts_with("/model/vocab") && !path.starts_with("/model/merges"))
          paths.push_back(path);
      }
      const json strange[] = {
          nullptr, -1, 1e300, "", json::array({1}), json::object({{"type", 3}})};
      for (const std::string& path : paths) {
        json changed = whole;
        changed[json::json_pointer(path)] = strange[random() % std::size(strange)];
        try_bytes(changed.dump());
      }
    }
    CHECK(errors > 100);
    CHECK(loaded > 10);
  }
}
