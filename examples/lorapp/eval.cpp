// lorapp eval: loss and perplexity over a data file, each example alone; answers compared with the
// responses.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "options.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>
#include <lorapp/generate/generate.hpp>
#include <lorapp/generate/text_metrics.hpp>
#include <lorapp/train/evaluate.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  DataOptions data{};
  std::string adapter{};
  std::int64_t generate = 0;

  void add_to(CLI::App& app) {
    model.add_to(app);
    model.add_cache_to(app);
    model.add_head_to(app);
    app.add_option("--adapter", adapter, "Adapter folder");
    data.add_to(app);
    app.add_option("--generate", generate, "Rows, from the first, to answer and compare")
        ->capture_default_str()
        ->check(at_least(0));
    common.add_to(app);
  }
};

/// Answers the first rows greedily, and adds how many were right.
void compare_answers(CausalLM& model,
                     const Tokenizer& tokenizer,
                     const DollyDataset& rows,
                     const Options& options,
                     Json& result) {
  const RowTemplate prompt = options.data.row_template(rows, tokenizer, options.model.folder());
  GenerationConfig config = GenerationConfig::from_pretrained(options.model.folder());
  config.do_sample = false;
  config.max_new_tokens = GenerationConfig{}.max_new_tokens;
  double matches = 0;
  double overlap = 0;
  for (std::int64_t i = 0; i < rows.size(); ++i) {
    const std::string text =
        generate_from(model, tokenizer, prompt.prompt_tokens(rows[i], tokenizer), config).text;
    const bool chat = !rows[i].messages.empty();
    const std::string& answer = chat ? rows[i].messages.back().content : rows[i].response;
    matches += exact_match(text, answer);
    overlap += token_f1(text, answer);
  }
  const auto count = static_cast<double>(rows.size());
  result["exact_match"] = matches / count;
  result["token_f1"] = overlap / count;
  result["generated"] = rows.size();
}

int run(const Options& options) {
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  const Tokenizer tokenizer = Tokenizer::from_pretrained(options.model.folder());
  const DollyDataset rows = options.data.read();
  const DollyDataset questions = rows.take(options.generate);
  LORAPP_CHECK(
      questions.filter([](const Instruction& row) { return row.text.has_value(); }).empty(), "eval",
      "--generate needs rows with an instruction and a response, found rows of plain text");
  const TokenizedDataset examples =
      options.data.tokenize(rows, tokenizer, options.model.folder(), console);
  std::shared_ptr<CausalLM> model = options.model.load(tokenizer, console);
  if (!options.adapter.empty()) {
    model = load_adapter(model, options.adapter, options.model.base_name(), console);
  }
  const LossResult loss = evaluate_loss(*model, examples, /*batch_size=*/1);
  Json result = {{"loss", loss.loss},
                 {"perplexity", loss.perplexity()},
                 {"tokens", loss.tokens},
                 {"examples", loss.examples}};
  if (!questions.empty()) compare_answers(*model, tokenizer, questions, options, result);
  console.result(result);
  return kDone;
}

}  // namespace

Command eval_command() {
  return {"eval", "Loss and perplexity over a data file, and how many answers are right",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
