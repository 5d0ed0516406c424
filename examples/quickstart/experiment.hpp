// The steps of the quickstart, each a few calls into lorapp; the program and the tests share them.
// A score counts an answer as exact only if the model also stopped by itself right behind it.
#pragma once

#include "world.hpp"

#include <lorapp/data/dolly.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/generate/generate.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/trainer.hpp>

#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace quickstart {

/// What differs from the tutorial's recipe, and why: docs/quickstart.md.
inline constexpr double kLearningRate = 5e-4;  // the tutorial has 2e-4
inline constexpr bool kTrainOnInputs = false;  // the tutorial scores the whole text

/// The folder of the committed base model in the source tree.
std::filesystem::path default_base();

/// The base with its linear layers in NF4, as the tutorial loads Mistral-7B.
std::shared_ptr<lorapp::CausalLM> load_base(const std::filesystem::path& dir);

/// A model that has learned the questions of a Dolly file; `progress` receives the log, if given.
std::shared_ptr<lorapp::PeftModel> tune(std::shared_ptr<lorapp::CausalLM> base,
                                        const lorapp::Tokenizer& tokenizer,
                                        const std::filesystem::path& dolly_file,
                                        const std::filesystem::path& output_dir,
                                        std::uint64_t seed,
                                        std::ostream* progress,
                                        bool is_terminal = false);

/// What a model said to each question, and how much of it was right.
struct Score {
  std::vector<std::string> texts;
  std::size_t exact = 0;   ///< the whole generation, ended by eos, is the answer
  std::size_t prefix = 0;  ///< the generation begins with the answer
  double seconds = 0;

  double exact_percent() const { return percent(exact); }
  double prefix_percent() const { return percent(prefix); }

 private:
  double percent(std::size_t n) const {
    return texts.empty() ? 0 : 100.0 * static_cast<double>(n) / static_cast<double>(texts.size());
  }
};

/// Asks every question through the Alpaca template; nothing of a generation is cut off.
Score ask_all(lorapp::CausalLM& model,
              const lorapp::Tokenizer& tokenizer,
              const std::vector<Question>& questions);

/// Asks the same questions as plain text behind three answered ones; the answer is the rest of the
/// line, so here exact means the line.
Score ask_all_few_shot(lorapp::CausalLM& model,
                       const lorapp::Tokenizer& tokenizer,
                       const std::vector<Question>& questions,
                       const std::vector<Question>& examples,
                       std::uint64_t seed);

/// Writes dolly_jsonl(questions) to `path`.
void write_dolly_file(const std::filesystem::path& path, const std::vector<Question>& questions);

/// The number of questions whose (entity, relation) also stands in `tuning`; 0 or the test is void.
std::size_t overlap(const std::vector<Question>& held_out, const std::vector<Question>& tuning);

}  // namespace quickstart
