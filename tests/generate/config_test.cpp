#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/generate/generation_config.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

using lorapp::Error;
using lorapp::GenerationConfig;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::TemporaryFolder;

TEST_SUITE("generate") {
  TEST_CASE("generation config: a folder without the file gives the defaults") {
    const TemporaryFolder folder;
    const auto config = GenerationConfig::from_pretrained(folder.path());
    CHECK(config.max_new_tokens == 150);
    CHECK_FALSE(config.do_sample);
    CHECK(config.temperature == 1.0);
    CHECK(config.top_k == 50);
    CHECK(config.eos_token_id.empty());
  }

  TEST_CASE("generation config: null and absent fields are defaults, eos is a number or a list") {
    const TemporaryFolder folder;
    folder.write("generation_config.json",
                 R"({"bos_token_id": 1, "eos_token_id": 2, "temperature": null, "top_k": null,
                     "top_p": 0.9, "do_sample": true, "transformers_version": "5.0.0"})");
    auto config = GenerationConfig::from_pretrained(folder.path());
    CHECK(config.eos_token_id == std::vector<int64_t>{2});
    CHECK(config.temperature == 1.0);
    CHECK(config.top_k == 50);
    CHECK(config.top_p == 0.9);
    CHECK(config.do_sample);

    folder.write("generation_config.json", R"({"eos_token_id": [2, 32000], "min_p": 0.05,
                     "stop_strings": "END", "repetition_penalty": 1.3, "max_new_tokens": 7})");
    config = GenerationConfig::from_pretrained(folder.path());
    CHECK(config.eos_token_id == std::vector<int64_t>{2, 32000});
    CHECK(config.min_p == 0.05);
    CHECK(config.repetition_penalty == 1.3);
    CHECK(config.max_new_tokens == 7);
    CHECK(config.stop_strings == std::vector<std::string>{"END"});
  }

  TEST_CASE("generation config: every wrong field of a file is in one message") {
    const TemporaryFolder folder;
    folder.write("generation_config.json",
                 R"({"temperature": "hot", "top_p": 1.5, "eos_token_id": "two"})");
    const std::string message = error_of([&] { GenerationConfig::from_pretrained(folder.path()); });
    CHECK(contains(message, "temperature"));
    CHECK(contains(message, "top_p"));
    CHECK(contains(message, "eos_token_id"));
    CHECK(contains(message, "generation_config.json"));
  }

  TEST_CASE("generation config: a setting that lorapp lacks is noted unless it changes nothing") {
    const TemporaryFolder folder;
    folder.write(
        "generation_config.json",
        R"({"num_beams": 4, "typical_p": 1.0, "suppress_tokens": null, "min_length": 30})");
    std::vector<std::string> notes;
    GenerationConfig::from_pretrained(folder.path(), &notes);
    REQUIRE(notes.size() == 2);
    CHECK(contains(notes[0], "min_length to 30"));
    CHECK(contains(notes[1], "num_beams to 4"));
  }

  TEST_CASE("generation config: validate lists every field outside its range") {
    GenerationConfig config{.max_new_tokens = 0, .temperature = 0.0, .top_k = -1, .top_p = 1.5};
    config.repetition_penalty = -1;
    config.stop_strings = {""};
    const std::string message = error_of([&] { config.validate(); });
    for (const char* field :
         {"max_new_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "stop string"}) {
      CAPTURE(field);
      CHECK(contains(message, field));
    }
    CHECK_FALSE(contains(message, "min_p"));
    CHECK_NOTHROW(GenerationConfig{}.validate());
    CHECK_THROWS_AS((GenerationConfig{.max_new_tokens = 3, .min_new_tokens = 4}.validate()), Error);
  }
}
