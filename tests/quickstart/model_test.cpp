// The embedded base model as it is committed: what it is, and what it can and cannot do untuned.
#include <quickstart/experiment.hpp>

#include <doctest/doctest.h>

#include <algorithm>

using namespace quickstart;

namespace {

constexpr std::uint64_t kSeed = 1;

// Every fifth held-out question: enough for the bounds, quick enough for every run of the tests.
std::vector<Question> some_held_out_questions() {
  const std::vector<Question> all = held_out_questions(split_world(kSeed), kSeed);
  std::vector<Question> some;
  for (std::size_t i = 0; i < all.size(); i += 5) some.push_back(all[i]);
  return some;
}

}  // namespace

TEST_SUITE("quickstart") {
  TEST_CASE("the embedded model is a Mistral of at most 10 MB in bf16") {
    const auto dir = default_base();
    CHECK(std::filesystem::file_size(dir / "model.safetensors") <= 10'000'000);
    const auto config = lorapp::ModelConfig::from_pretrained(dir);
    CHECK(config.model_type == "mistral");
    CHECK(config.vocab_size == 2048);
    CHECK_FALSE(config.tie_word_embeddings);
    const auto weights = lorapp::Checkpoint::open(dir);
    for (const std::string& name : weights.names()) CHECK(weights.info(name).dtype == "BF16");
    CHECK(lorapp::Tokenizer::from_pretrained(dir).vocab_size() == config.vocab_size);
  }

  TEST_CASE("the embedded vocabulary spells any text, also what the world never says") {
    const auto tokenizer = lorapp::Tokenizer::from_pretrained(default_base());
    for (const char* text :
         {"The capital of France is Paris.", "### Response:\n", "naïve — 東京 🙂"}) {
      CHECK(tokenizer.decode(tokenizer.encode(text)) == text);
    }
  }

  TEST_CASE("untuned, the base answers at most 10 % of the held-out questions exactly") {
    const auto tokenizer = lorapp::Tokenizer::from_pretrained(default_base());
    const auto base = load_base(default_base());
    const std::vector<Question> questions = some_held_out_questions();
    const Score score = ask_all(*base, tokenizer, questions);
    CHECK(questions.size() >= 80);
    CHECK(score.texts.size() == questions.size());
    CHECK(score.exact_percent() <= 10);
  }

  TEST_CASE("untuned, the base knows at least 60 % of the answers when asked as it learned them") {
    const auto tokenizer = lorapp::Tokenizer::from_pretrained(default_base());
    const auto base = load_base(default_base());
    const auto examples = tuning_questions(split_world(kSeed), kSeed);
    const Score score =
        ask_all_few_shot(*base, tokenizer, some_held_out_questions(), examples, kSeed);
    CHECK(score.exact_percent() >= 60);
  }
}
