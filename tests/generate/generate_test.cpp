#include "support/error_of.hpp"
#include "support/for_each_isa.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"
#include "support/tiny_tokenizer.hpp"

#include <lorapp/generate/generate.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/nn/modules/dropout.h>

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace lorapp;

namespace {

using Tokens = std::vector<int64_t>;

const Tokenizer& tiny_tokenizer() {
  static const Tokenizer tokenizer = [] {
    const test::TemporaryFolder folder;
    test::write_tiny_tokenizer(folder.path());
    return Tokenizer::from_pretrained(folder.path());
  }();
  return tokenizer;
}

/// A model that says a given text, whatever it is asked: token i of the script is the best at the
/// i-th position after the prompt.
class ScriptedModel : public CausalLM {
 public:
  ScriptedModel(Tokens script, int64_t prompt_length)
      : script_(std::move(script)), prompt_length_(prompt_length) {
    config_.vocab_size = test::kTinyVocabSize;
    config_.max_position_embeddings = 64;
    register_module("dropout", dropout_);
  }

  const ModelConfig& config() const override { return config_; }
  ModelConfig& mutable_config() { return config_; }
  torch::nn::Dropout& dropout() { return dropout_; }

  torch::Tensor hidden_states(const PackedInput& input, KvCache* cache) override {
    CHECK_FALSE(torch::GradMode::is_enabled());
    CHECK_FALSE(is_training());
    REQUIRE(cache != nullptr);
    CHECK(input.positions[0].item<int64_t>() == cache->length());
    cache->advance(input.num_tokens());
    seen.push_back(input.num_tokens());
    return input.positions.to(torch::kFloat32).unsqueeze(1);
  }

  torch::Tensor lm_head(const torch::Tensor& hidden) override {
    CHECK(hidden.dim() == 1);  // one position, not all of the prompt
    const int64_t index = hidden[0].item<int64_t>() - prompt_length_ + 1;
    torch::Tensor logits = torch::zeros({config_.vocab_size});
    logits[script_.at(static_cast<std::size_t>(index))] = best_score;
    return logits;
  }

  void seed_dropout(std::uint64_t) override {}
  void set_gradient_checkpointing(CheckpointingMode) override {}
  std::string name_or_path() const override { return {}; }
  void save_pretrained(const std::filesystem::path&) const override {}

  std::vector<int64_t> seen;  // lengths of the forward passes
  float best_score = 10;

 private:
  ModelConfig config_;
  Tokens script_;
  int64_t prompt_length_;
  torch::nn::Dropout dropout_;
};

constexpr std::string_view kPrompt = "The capital of";

int64_t prompt_length() { return static_cast<int64_t>(tiny_tokenizer().encode(kPrompt).size()); }

/// A model that answers kPrompt with `text`, then `last` over and over.
ScriptedModel model_that_says(const std::string& text, int64_t last) {
  Tokens script = tiny_tokenizer().encode(text, false);
  script.resize(script.size() + 100, last);
  return {script, prompt_length()};
}

}  // namespace

TEST_SUITE("generate") {
  TEST_CASE("generate: ends at eos; tokens hold it, the text does not") {
    ScriptedModel model = model_that_says("France is Paris.", 2);
    const GenerationResult result = generate(model, tiny_tokenizer(), kPrompt);
    CHECK(result.text == "France is Paris.");
    CHECK(result.finish_reason == FinishReason::eos);
    CHECK(result.tokens.back() == 2);
    CHECK(result.tokens.size() == tiny_tokenizer().encode("France is Paris.", false).size() + 1);
    CHECK(result.prompt_tokens == tiny_tokenizer().encode(kPrompt));
    CHECK(result.prompt_tokens.front() == *tiny_tokenizer().bos_id());
  }

  TEST_CASE("generate: the prompt is read once, then one token at a time") {
    ScriptedModel model = model_that_says("one two", 2);
    const GenerationResult result = generate(model, tiny_tokenizer(), kPrompt);
    REQUIRE(model.seen.size() == result.tokens.size());
    CHECK(model.seen[0] == prompt_length());
    for (std::size_t i = 1; i < model.seen.size(); ++i) CHECK(model.seen[i] == 1);
  }

  TEST_CASE("generate: max_new_tokens ends with length, and no pass is made for nothing") {
    ScriptedModel model = model_that_says("the quick brown fox", 2);
    const GenerationResult result =
        generate(model, tiny_tokenizer(), kPrompt, {.max_new_tokens = 3});
    CHECK(result.finish_reason == FinishReason::length);
    CHECK(result.tokens.size() == 3);
    CHECK(model.seen.size() == 3);
  }

  TEST_CASE("generate: every id of an eos list ends the text; the caller's list replaces it") {
    ScriptedModel model = model_that_says("one", 7);
    model.mutable_config().eos_token_id = {2, 7};
    CHECK(generate(model, tiny_tokenizer(), kPrompt).finish_reason == FinishReason::eos);
    GenerationConfig config{.max_new_tokens = 5};
    config.eos_token_id = {2};
    CHECK(generate(model, tiny_tokenizer(), kPrompt, config).finish_reason == FinishReason::length);
  }

  TEST_CASE("generate: ignore_eos goes on, and the end tokens leave no text") {
    ScriptedModel model = model_that_says("one", 2);
    const GenerationResult result =
        generate(model, tiny_tokenizer(), kPrompt, {.max_new_tokens = 20, .ignore_eos = true});
    CHECK(result.tokens.size() == 20);
    CHECK(result.text == "one");
    CHECK(result.finish_reason == FinishReason::length);
  }

  TEST_CASE("generate: a stop string cuts the text before it, for the stream too") {
    ScriptedModel model = model_that_says("one two three four", 2);
    GenerationConfig config;
    config.stop_strings = {"o three"};
    std::string streamed;
    const GenerationResult result =
        generate(model, tiny_tokenizer(), kPrompt, config, [&](std::string_view text) {
          CHECK_FALSE(text.empty());
          streamed += text;
        });
    CHECK(result.text == "one tw");
    CHECK(streamed == result.text);
    CHECK(result.finish_reason == FinishReason::stop);
    CHECK(tiny_tokenizer().decode(result.tokens).starts_with("one two three"));
  }

  TEST_CASE("generate: the stream is the text, in whole characters, though bytes come singly") {
    const std::string text =
        "naïve 日本語 🦊!";  // no piece of the vocabulary holds these letters
    ScriptedModel model = model_that_says(text, 2);
    std::vector<std::string> pieces;
    const GenerationResult result =
        generate(model, tiny_tokenizer(), kPrompt, {},
                 [&](std::string_view piece) { pieces.emplace_back(piece); });
    std::string joined;
    for (const std::string& piece : pieces) {
      CHECK((static_cast<unsigned char>(piece[0]) & 0xc0) !=
            0x80);  // no piece begins mid-character
      joined += piece;
    }
    CHECK(joined == text);
    CHECK(result.text == text);
    CHECK(result.text == tiny_tokenizer().decode(result.tokens));
  }

  TEST_CASE(
      "generate: ends with length where the context is full, and refuses a prompt that fills it") {
    ScriptedModel model = model_that_says("", 9);
    model.mutable_config().max_position_embeddings = prompt_length() + 4;
    const GenerationResult result = generate(model, tiny_tokenizer(), kPrompt);
    CHECK(result.tokens.size() == 4);
    CHECK(result.finish_reason == FinishReason::length);
    model.mutable_config().max_position_embeddings = prompt_length();
    CHECK_THROWS_AS(generate(model, tiny_tokenizer(), kPrompt), Error);
  }

  TEST_CASE("generate: a tokenizer with more tokens than the embedding has rows is an error") {
    ScriptedModel model = model_that_says("", 9);
    model.mutable_config().vocab_size = test::kTinyVocabSize - 1;
    CHECK_THROWS_WITH_AS(generate(model, tiny_tokenizer(), kPrompt),
                         "[generate] the tokenizer has 320 tokens, but the model's embedding has "
                         "319 rows",
                         Error);
  }

  TEST_CASE("generate: logits that are not finite are an error") {
    ScriptedModel model = model_that_says("one", 2);
    model.best_score = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS_AS(generate(model, tiny_tokenizer(), kPrompt), Error);
  }

  TEST_CASE("generate: the caller's flag ends it before the next token") {
    ScriptedModel model = model_that_says("one two three", 2);
    std::atomic<bool> interrupt = false;
    int pieces = 0;
    const GenerationResult result = generate(
        model, tiny_tokenizer(), kPrompt, {}, [&](std::string_view) { interrupt = ++pieces == 2; },
        &interrupt);
    CHECK(result.finish_reason == FinishReason::interrupted);
    CHECK(pieces == 2);
    CHECK(to_string(result.finish_reason) == "interrupted");
  }

  TEST_CASE("generate: modes and gradients are afterwards what they were, after an error too") {
    ScriptedModel model = model_that_says("one", 2);
    model.train();
    model.dropout()->eval();  // one module in another mode than its parent
    generate(model, tiny_tokenizer(), kPrompt);
    CHECK(model.is_training());
    CHECK_FALSE(model.dropout()->is_training());
    CHECK(torch::GradMode::is_enabled());
    model.best_score = std::numeric_limits<float>::infinity();
    CHECK_THROWS_AS(generate(model, tiny_tokenizer(), kPrompt), Error);
    CHECK(model.is_training());
    CHECK_FALSE(model.dropout()->is_training());
    CHECK(torch::GradMode::is_enabled());
  }

  TEST_CASE("generate: what looks like a special token in a prompt is plain text") {
    ScriptedModel model({2}, static_cast<int64_t>(tiny_tokenizer().encode("</s> x").size()));
    const GenerationResult result = generate(model, tiny_tokenizer(), "</s> x");
    CHECK(std::ranges::count(result.prompt_tokens, 2) == 0);
  }

  TEST_CASE("generate: a 4-bit model says what its whole forward passes do, from one token on") {
    for (const int64_t window : {0, 5}) {
      ModelConfig config = test::tiny_config();
      config.vocab_size = test::kTinyVocabSize;
      config.hidden_size = 96;  // 32 divides all rows, so that weights are packed
      config.intermediate_size = 160;
      config.num_attention_heads = 6;
      config.head_dim = 16;
      config.sliding_window = window > 0 ? std::optional(window) : std::nullopt;
      const auto model = test::tiny_model(7, config);
      for_each_linear(*model, [](const std::string& path, LinearImpl& linear) {
        if (path == "lm_head") return;
        linear.set_quantized(quantize_4bit(linear.dense_weight()), torch::kFloat32);
        REQUIRE(linear.quantized().is_packed());
      });
      test::for_each_isa([&](const std::string&) {
        for (const Tokens& prompt : {Tokens{1}, Tokens{1, 9, 300, 4, 4, 77, 12, 260}}) {
          INFO("window ", window, " prompt of ", prompt.size());
          Tokens ids = prompt;
          const torch::NoGradGuard no_grad;
          while (ids.size() < prompt.size() + 12) {
            const torch::Tensor logits = model->forward(PackedInput::single(ids));
            ids.push_back(logits[logits.size(0) - 1].argmax().item<int64_t>());
          }
          const GenerationResult result = generate_from(*model, tiny_tokenizer(), prompt,
                                                        {.max_new_tokens = 12, .ignore_eos = true});
          CHECK(result.tokens ==
                Tokens(ids.begin() + static_cast<std::ptrdiff_t>(prompt.size()), ids.end()));
        }
      });
      CHECK(test::contains(
          test::error_of([&] { (void)generate_from(*model, tiny_tokenizer(), {}); }), "empty"));
    }
  }
}
