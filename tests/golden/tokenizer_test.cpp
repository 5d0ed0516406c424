// Token ids against sentencepiece's.
#include "support/golden.hpp"
#include "support/shared_data.hpp"

#include <lorapp/data/tokenizer.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("golden tokenizer") {
  TEST_CASE("the ids of awkward texts are sentencepiece's, for two real tokenizers") {
    for (const auto& entry : golden_json("tokenizer.json")) {
      const auto folder_name = entry.at("folder").get<std::string>();
      CAPTURE(folder_name);
      const auto folder = shared_data(folder_name);
      if (!folder) {
        MESSAGE("skipped: the shared data (LORAPP_SHARED_DATA) have no ", folder_name);
        continue;
      }
      const Tokenizer tokenizer = Tokenizer::from_pretrained(*folder);
      CHECK(entry.at("texts").size() >= 20);
      for (const auto& item : entry.at("texts")) {
        const auto text = item.at("text").get<std::string>();
        auto want = item.at("ids").get<std::vector<std::int64_t>>();
        CAPTURE(text);
        CHECK(tokenizer.encode(text, false) == want);
        CHECK(tokenizer.encode_with_spans(text, false).ids == want);
        want.insert(want.begin(), 1);
        CHECK(tokenizer.encode(text) == want);
      }
    }
  }
}
