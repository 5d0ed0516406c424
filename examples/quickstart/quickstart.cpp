// The quickstart: tunes the embedded base model on half of a small world and asks about the rest.
// Everything it prints is computed in this run; nothing is read but the base model's folder.
#include "experiment.hpp"

#include <sys/resource.h>
#include <torch/utils.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

namespace {

using namespace quickstart;

struct Options {
  std::filesystem::path base = default_base();
  std::filesystem::path work_dir = "quickstart-out";
  std::uint64_t seed = 1;
  std::size_t num_questions = 0;
  int threads = 0;
  bool controls = false;
};

double peak_megabytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

// One line of text, newlines made visible, cut to `width`.
std::string shown(const std::string& text, std::size_t width) {
  std::string line;
  for (const char c : text) line += c == '\n' ? std::string("\\n") : std::string(1, c);
  if (line.size() > width) line = line.substr(0, width - 3) + "...";
  return line;
}

void print_side_by_side(const std::vector<Question>& questions,
                        const Score& base,
                        const Score& tuned) {
  std::printf("\n%-46s %-26s %-16s %s\n", "question", "base", "tuned", "right answer");
  for (std::size_t i = 0; i < std::min<std::size_t>(12, questions.size()); ++i) {
    std::printf("%-46s %-26s %-16s %s\n", shown(questions[i].instruction, 46).c_str(),
                shown(base.texts[i], 26).c_str(), shown(tuned.texts[i], 16).c_str(),
                questions[i].answer.c_str());
  }
}

void print_score(const char* name, const Score& score) {
  std::printf("%-34s exact match %5.1f %%   prefix match %5.1f %%   (%.0f s)\n", name,
              score.exact_percent(), score.prefix_percent(), score.seconds);
  std::fflush(stdout);
}

void run_controls(const Options& options,
                  const lorapp::Tokenizer& tokenizer,
                  const std::vector<Question>& tuning,
                  const std::vector<Question>& held_out) {
  std::printf("\nControls\n");
  auto base = load_base(options.base);
  print_score("base, three examples before it",
              ask_all_few_shot(*base, tokenizer, held_out, tuning, options.seed));
  const auto file = options.work_dir / "shuffled.jsonl";
  write_dolly_file(file, with_shuffled_answers(tuning, options.seed));
  const auto model = tune(base, tokenizer, file, options.work_dir / "shuffled", options.seed,
                          &std::cerr, isatty(STDERR_FILENO) != 0);
  print_score("tuned on shuffled answers", ask_all(*model, tokenizer, held_out));
}

void run(const Options& options) {
  const auto start = std::chrono::steady_clock::now();
  if (options.threads > 0) at::set_num_threads(options.threads);
  std::filesystem::create_directories(options.work_dir);

  const Split split = split_world(options.seed);
  const std::vector<Question> tuning = tuning_questions(split, options.seed);
  std::vector<Question> held_out = held_out_questions(split, options.seed);
  if (options.num_questions > 0 && options.num_questions < held_out.size()) {
    held_out.resize(options.num_questions);
  }
  const std::size_t shared = overlap(held_out, tuning);
  std::printf(
      "%zu facts in %zu relations; tuning file about %zu of them (%zu rows), %zu held-out "
      "questions\n",
      facts().size(), relations().size(), split.tuning.size(), tuning.size(), held_out.size());
  std::printf("held-out questions whose (entity, relation) is in the tuning file: %zu\n", shared);
  LORAPP_CHECK(shared == 0, "quickstart", "the held-out questions are not held out");
  const auto file = options.work_dir / "tuning.jsonl";
  write_dolly_file(file, tuning);

  const auto tokenizer = lorapp::Tokenizer::from_pretrained(options.base);
  auto base = load_base(options.base);
  const Score before = ask_all(*base, tokenizer, held_out);
  print_score("base (NF4)", before);

  const auto tuning_start = std::chrono::steady_clock::now();
  const auto adapter_dir = options.work_dir / "adapter";
  std::filesystem::remove_all(adapter_dir);
  const auto model = tune(base, tokenizer, file, adapter_dir, options.seed, &std::cerr,
                          isatty(STDERR_FILENO) != 0);
  const std::chrono::duration<double> tuning_time = std::chrono::steady_clock::now() - tuning_start;
  model->save_pretrained(adapter_dir);
  const Score after = ask_all(*model, tokenizer, held_out);
  print_score("tuned (NF4 + LoRA)", after);
  print_side_by_side(held_out, before, after);

  const std::chrono::duration<double> total = std::chrono::steady_clock::now() - start;
  std::printf("\nexact match of the whole answer: base %.1f %%, tuned %.1f %%\n",
              before.exact_percent(), after.exact_percent());
  std::printf("tuning %.0f s, all %.0f s, peak memory %.0f MB, adapter in %s\n",
              tuning_time.count(), total.count(), peak_megabytes(), adapter_dir.c_str());
  if (options.controls) run_controls(options, tokenizer, tuning, held_out);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app{
      "Tunes a small base model with QLoRA on half of a small world and asks about the rest."};
  app.add_option("--base", options.base, "folder of the base model")->capture_default_str();
  app.add_option("--work-dir", options.work_dir, "folder for files")->capture_default_str();
  app.add_option("--seed", options.seed, "of the split, the questions and the training")
      ->capture_default_str();
  app.add_option("--questions", options.num_questions, "ask only so many (0: all)")
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: LibTorch's own choice")->capture_default_str();
  app.add_flag("--controls", options.controls,
               "also: the base with three examples, and tuning on shuffled answers");
  CLI11_PARSE(app, argc, argv);
  try {
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "quickstart: " << error.what() << '\n';
    return 1;
  }
}
