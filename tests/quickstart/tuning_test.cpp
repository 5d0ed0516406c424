// The whole quickstart with its control, on every held-out question. Minutes, so labelled slow.
#include <quickstart/experiment.hpp>

#include <doctest/doctest.h>

#include <unistd.h>

using namespace quickstart;

namespace {

constexpr std::uint64_t kSeed = 1;

class TemporaryFolder {
 public:
  TemporaryFolder()
      : path_(std::filesystem::temp_directory_path() /
              ("lorapp-quickstart-" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

Score tuned_score(const std::vector<Question>& rows, const std::vector<Question>& held_out) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "rows.jsonl";
  write_dolly_file(file, rows);
  const auto tokenizer = lorapp::Tokenizer::from_pretrained(default_base());
  const auto model =
      tune(load_base(default_base()), tokenizer, file, folder.path() / "out", kSeed, nullptr);
  return ask_all(*model, tokenizer, held_out);
}

}  // namespace

TEST_SUITE("quickstart_tuning") {
  TEST_CASE("tuned on one half of the world, the model answers 80 % of the other half exactly") {
    const Split split = split_world(kSeed);
    const auto rows = tuning_questions(split, kSeed);
    const auto held_out = held_out_questions(split, kSeed);
    REQUIRE(overlap(held_out, rows) == 0);
    REQUIRE(held_out.size() >= 200);
    const Score score = tuned_score(rows, held_out);
    CHECK(score.exact_percent() >= 80);
    CHECK(score.prefix_percent() >= score.exact_percent());
  }

  TEST_CASE("tuned on shuffled answers, it answers at most 20 % exactly") {
    const Split split = split_world(kSeed);
    const auto rows = with_shuffled_answers(tuning_questions(split, kSeed), kSeed);
    CHECK(tuned_score(rows, held_out_questions(split, kSeed)).exact_percent() <= 20);
  }
}
