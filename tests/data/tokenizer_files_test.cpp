// Tokenizer::from_pretrained and save_pretrained: the files of a folder, whole, partial and broken.
#include <lorapp/data/tokenizer.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

#include <random>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;
using data_test::read_file;
using data_test::TemporaryFolder;
using data_test::tokenizer_dir;
using data_test::fs::copy_file;

namespace {

// A folder with the small model and the given tokenizer_config.json.
struct Folder {
  TemporaryFolder folder;

  explicit Folder(const std::string& config = {}, const std::string& special_map = {}) {
    copy_file(tokenizer_dir("llama_like") / "tokenizer.model", folder / "tokenizer.model");
    if (!config.empty()) folder.write("tokenizer_config.json", config);
    if (!special_map.empty()) folder.write("special_tokens_map.json", special_map);
  }
  Tokenizer load() const { return Tokenizer::from_pretrained(folder.path()); }
  std::string error() const {
    return error_of([this] { (void)load(); });
  }
};

}  // namespace

TEST_SUITE("data") {
  TEST_CASE(
      "tokenizer files: tokenizer.model alone gives the model's own special ids, bos added, eos "
      "not") {
    const Tokenizer t = Folder().load();
    CHECK(t.bos_id() == 1);
    CHECK(t.eos_id() == 2);
    CHECK(t.unk_id() == 0);
    CHECK(t.pad_id() == 2);
    CHECK(t.add_bos());
    CHECK_FALSE(t.add_eos());
    CHECK(t.vocab_size() == 420);
    CHECK(t.is_special(1));
  }

  TEST_CASE(
      "tokenizer files: the configuration decides on bos, eos and pad, before the special tokens "
      "map") {
    const Folder folder(
        R"({"add_bos_token": false, "add_eos_token": true, "eos_token": {"content": "<0x00>"}, "pad_token": null})",
        R"({"eos_token": "</s>", "pad_token": {"content": "<unk>"}})");
    const Tokenizer t = folder.load();
    CHECK(t.id_to_token(*t.eos_id()) == "<0x00>");
    CHECK(t.pad_id() == 0);
    CHECK_FALSE(t.add_bos());
    CHECK(t.encode("a").back() == *t.eos_id());
    CHECK(t.encode("a").front() != 1);
    CHECK(t.encode_with_spans("ab", true).spans.back() ==
          std::pair<std::size_t, std::size_t>{2, 2});
  }

  TEST_CASE(
      "tokenizer files: legacy puts a space before text that follows a special token, "
      "add_prefix_space false never does") {
    const auto marked = [](const Tokenizer& t) {
      return t.id_to_token(t.encode_with_special("</s>the", false)[1]).starts_with("▁");
    };
    CHECK(marked(Folder(R"({"legacy": true})").load()));
    CHECK_FALSE(marked(Folder(R"({"legacy": false})").load()));
    const Tokenizer no_prefix = Folder(R"({"add_prefix_space": false})").load();
    CHECK_FALSE(no_prefix.id_to_token(no_prefix.encode("the", false)[0]).starts_with("▁"));
    CHECK(no_prefix.decode(no_prefix.encode(" the")) == " the");
    CHECK(no_prefix.decode(no_prefix.encode("the")) == "the");
  }

  TEST_CASE(
      "tokenizer files: added tokens come from added_tokens.json too, and take the white space "
      "they ask for") {
    Folder folder(
        R"({"added_tokens_decoder": {"500": {"content": "<sep>", "special": true, "lstrip": true, "rstrip": true}}})");
    folder.folder.write("added_tokens.json", R"({"<sep>": 500, "<more>": 420})");
    const Tokenizer t = folder.load();
    CHECK(t.vocab_size() == 501);
    CHECK(t.token_to_id("<more>") == 420);
    CHECK(t.encode_with_special("a <sep>  b", false) == t.encode_with_special("a<sep>b", false));
    CHECK(t.decode({500}, false) == "<sep>");
    CHECK(t.decode({500}, true).empty());
    CHECK_THROWS_AS((void)t.decode({450}), Error);  // a gap below 500
  }

  TEST_CASE("tokenizer files: one message lists every contradiction") {
    const std::string message =
        Folder(R"({"bos_token": "<none>", "eos_token": 3, "add_eos_token": "yes",
      "added_tokens_decoder": {"x": {"content": "<a>"}, "500": {"content": ""}, "501": {"content": "<s>"},
                               "502": {"content": "<w>", "single_word": true}, "503": 4},
      "additional_special_tokens": ["<ghost>"]})")
            .error();
    CAPTURE(message);
    for (const char* part :
         {"bos_token is \"<none>\"", "eos_token is 3", "add_eos_token is \"yes\"", "\"x\"",
          "\"500\"", "\"<s>\" has id 501, but is known as id 1", "single_word", "\"503\"",
          "\"<ghost>\""}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
    CHECK(contains(Folder(R"({"bos_token": )").error(), "tokenizer_config.json"));
    CHECK(contains(Folder("[]").error(), "expected an object"));
  }

  TEST_CASE(
      "tokenizer files: no folder, no model, an empty tokenizer.json and a model that is none are "
      "errors") {
    const TemporaryFolder folder;
    CHECK(contains(error_of([&] { (void)Tokenizer::from_pretrained(folder / "none"); }),
                   "none: no such folder"));
    const std::string too_long(5000, 'x');
    CHECK(contains(error_of([&] { (void)Tokenizer::from_pretrained(too_long); }), too_long));
    CHECK(contains(error_of([&] { (void)Tokenizer::from_pretrained(folder.path()); }),
                   "has neither tokenizer.model"));
    folder.write("tokenizer.json", "{}");
    CHECK(contains(error_of([&] { (void)Tokenizer::from_pretrained(folder.path()); }),
                   "tokenizer.json: model is"));
    for (const std::string& bytes :
         {std::string(), std::string("IQ== 0\nIg== 1\n"), std::string(1000, '\xff')}) {
      folder.write("tokenizer.model", bytes);
      const std::string message =
          error_of([&] { (void)Tokenizer::from_pretrained(folder.path()); });
      CAPTURE(message);
      CHECK(contains(message, "tokenizer.model"));
    }
  }

  TEST_CASE(
      "tokenizer files: a truncated model is an error or a smaller vocabulary, never a crash") {
    const std::string bytes = read_file(tokenizer_dir("llama_like") / "tokenizer.model");
    const TemporaryFolder folder;
    for (std::size_t size = 1; size < bytes.size(); size += 97) {
      folder.write("tokenizer.model", std::string_view(bytes).substr(0, size));
      try {
        (void)Tokenizer::from_pretrained(folder.path()).encode("The river");
      } catch (const Error& error) {
        CHECK(contains(error.what(), "tokenizer"));
      }
    }
  }

  TEST_CASE(
      "tokenizer files: save_pretrained writes the same bytes, and the copy gives the same ids") {
    const Folder source(read_file(tokenizer_dir("llama_like") / "tokenizer_config.json"),
                        read_file(tokenizer_dir("llama_like") / "special_tokens_map.json"));
    source.folder.write("tokenizer.json", "{\"kept\": 1}\n");
    source.folder.write("chat_template.jinja", "{{ x }}");
    const Tokenizer t = source.load();
    const TemporaryFolder target;
    t.save_pretrained(target / "new" / "folder");
    for (const char* name : {"tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
                             "tokenizer.json", "chat_template.jinja"}) {
      CAPTURE(name);
      CHECK(read_file(target / "new" / "folder" / name) == read_file(source.folder / name));
    }
    const Tokenizer copy = Tokenizer::from_pretrained(target / "new" / "folder");
    CHECK(copy.encode("The old house 😀") == t.encode("The old house 😀"));
    t.save_pretrained(source.folder.path());  // onto itself
    CHECK(source.load().vocab_size() == t.vocab_size());
    target.write("file", "x");
    CHECK_THROWS_AS(t.save_pretrained(target / "file"), Error);
  }
}
