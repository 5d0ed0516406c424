// A small model with trained weights: what it writes, against its author and against transformers.
#include "support/golden.hpp"
#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/generate/generate.hpp>
#include <lorapp/nn/causal_lm.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("golden stories260K") {
  TEST_CASE("five prompts continue as transformers continues them") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/stories260K");
    const OneThread one_thread;
    const auto model = CausalLM::from_pretrained(folder);
    const Tokenizer tokenizer = Tokenizer::from_pretrained(folder);
    const auto golden = golden_json("stories260k_greedy.json");
    CHECK(golden.at("continuations").size() == 5);
    for (const auto& want : golden.at("continuations")) {
      const auto prompt = want.at("prompt").get<std::string>();
      CAPTURE(prompt);
      const GenerationResult got =
          generate(*model, tokenizer, prompt,
                   {.max_new_tokens = golden.at("max_new_tokens").get<std::int64_t>()});
      CHECK(got.prompt_tokens == want.at("prompt_tokens").get<std::vector<std::int64_t>>());
      CHECK(got.tokens == want.at("tokens").get<std::vector<std::int64_t>>());
      CHECK(got.text == want.at("text").get<std::string>());
    }
  }

  TEST_CASE("the first 200 tokens are its author's greedy text") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/stories260K");
    const OneThread one_thread;
    const auto model = CausalLM::from_pretrained(folder);
    const Tokenizer tokenizer = Tokenizer::from_pretrained(folder);
    // The file holds the text of bos and 200 tokens; a prompt of nothing leaves bos alone.
    const std::string want = read_file(folder / "greedy_200_expected.txt");
    const GenerationResult got = generate(*model, tokenizer, "", {.max_new_tokens = 200});
    CHECK(got.prompt_tokens == std::vector<std::int64_t>{1});
    CHECK(want.size() > 400);
    CHECK(tokenizer.decode(got.tokens) == want);
  }
}
