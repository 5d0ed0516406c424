// lorapp generate: complete a prompt, with the base, an adapter, or both side by side.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "interrupt.hpp"
#include "options.hpp"

#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/generate/generate.hpp>

#include <CLI/CLI.hpp>

#include <iostream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  TemplateOptions prompt_template{};
  std::string adapter{};
  std::optional<std::string> prompt{};
  std::optional<std::string> instruction{};
  std::string input{};
  std::int64_t max_new_tokens = 150;
  std::int64_t min_new_tokens = 0;
  bool ignore_eos = false;
  bool do_sample = false;
  std::optional<double> temperature{};
  std::optional<std::int64_t> top_k{};
  std::optional<double> top_p{};
  std::optional<double> min_p{};
  std::optional<double> repetition_penalty{};
  std::vector<std::string> stop{};
  bool no_stream = false;
  bool compare = false;

  void add_to(CLI::App& app);
  std::vector<std::int64_t> prompt_tokens(const Tokenizer& tokenizer) const;
  GenerationConfig generation_config(const Console& console) const;
};

void Options::add_to(CLI::App& app) {
  model.add_to(app);
  model.add_cache_to(app);
  model.add_head_to(app);
  auto* adapter_option = app.add_option("--adapter", adapter, "Adapter folder");
  auto* prompt_option = app.add_option("--prompt", prompt, "Text to continue, as it is, after bos");
  auto* instruction_option =
      app.add_option("--instruction", instruction, "Instruction, put through the template")
          ->excludes(prompt_option);
  app.add_option("--input", input, "The instruction's context")->needs(instruction_option);
  prompt_template.add_to(app)->needs(instruction_option);
  app.add_option("--max-new-tokens", max_new_tokens, "Most tokens to generate")
      ->capture_default_str();
  app.add_option("--min-new-tokens", min_new_tokens, "Tokens before the end token may come")
      ->capture_default_str();
  app.add_flag("--ignore-eos", ignore_eos, "Go on behind the end token");
  app.add_flag("--do-sample", do_sample, "Draw tokens by chance instead of taking the likeliest");
  const auto add = [&](const char* name, auto& value, const char* help, const char* neutral) {
    app.add_option(name, value, help)
        ->default_str(std::string("generation_config.json's, else ") + neutral);
  };
  add("--temperature", temperature, "Scores are divided by it", "1");
  add("--top-k", top_k, "Draw from the k likeliest; 0: all", "50");
  add("--top-p", top_p, "Draw from the likeliest whose mass reaches p", "1");
  add("--min-p", min_p, "Leave out tokens less likely than p times the likeliest", "0");
  add("--repetition-penalty", repetition_penalty, "Weight against tokens seen before", "1");
  add_list(app, "--stop", stop, "Text to stop before; may be given several times");
  app.add_flag("--no-stream", no_stream, "Print the text at the end, not while it is made");
  app.add_flag("--compare", compare, "The base's answer first, then the adapter's")
      ->needs(adapter_option);
  common.add_to(app);
}

std::vector<std::int64_t> Options::prompt_tokens(const Tokenizer& tokenizer) const {
  if (prompt) return detail::prompt_tokens(tokenizer, *prompt);
  const Instruction row{.instruction = *instruction, .context = input};
  return prompt_template.row_template(model.folder(), tokenizer, false)
      .prompt_tokens(row, tokenizer);
}

GenerationConfig Options::generation_config(const Console& console) const {
  std::vector<std::string> notes;
  GenerationConfig config = GenerationConfig::from_pretrained(model.folder(), &notes);
  for (const std::string& note : notes) console.note(note);
  config.max_new_tokens = max_new_tokens;
  config.min_new_tokens = min_new_tokens;
  config.ignore_eos = ignore_eos;
  config.do_sample = do_sample;
  config.temperature = temperature.value_or(config.temperature);
  config.top_k = top_k.value_or(config.top_k);
  config.top_p = top_p.value_or(config.top_p);
  config.min_p = min_p.value_or(config.min_p);
  config.repetition_penalty = repetition_penalty.value_or(config.repetition_penalty);
  config.stop_strings.insert(config.stop_strings.end(), stop.begin(), stop.end());
  config.seed = model.seed;
  config.validate();
  return config;
}

Json to_json(const GenerationResult& result) {
  return {{"prompt_tokens", result.prompt_tokens},
          {"tokens", result.tokens},
          {"text", result.text},
          {"finish_reason", to_string(result.finish_reason)},
          {"tokens_per_second", result.tokens_per_second},
          {"prefill_tokens_per_second", result.prefill_tokens_per_second}};
}

/// One answer: streamed to stdout as it is made, unless the result is printed at the end.
GenerationResult answer(CausalLM& model,
                        const Tokenizer& tokenizer,
                        const std::vector<std::int64_t>& prompt,
                        const GenerationConfig& config,
                        const Options& options) {
  TextCallback on_text;
  if (!options.common.json && !options.no_stream) {
    on_text = [](std::string_view text) { std::cout << text << std::flush; };
  }
  GenerationResult result = generate_from(model, tokenizer, prompt, config, on_text, &stop_flag());
  if (!options.common.json) {
    if (options.no_stream) std::cout << result.text;
    std::cout << std::endl;
  }
  return result;
}

int run(const Options& options) {
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  if (!options.prompt && !options.instruction)
    throw CLI::RequiredError("--prompt or --instruction");
  const GenerationConfig config = options.generation_config(console);
  const Tokenizer tokenizer = Tokenizer::from_pretrained(options.model.folder());
  const std::vector<std::int64_t> prompt = options.prompt_tokens(tokenizer);
  std::shared_ptr<CausalLM> model = options.model.load(tokenizer, console);
  std::shared_ptr<PeftModel> tuned;
  if (!options.adapter.empty()) {
    tuned = load_adapter(model, options.adapter, options.model.base_name(), console);
    model = tuned;
  }

  stop_on_signals();
  Json result;
  if (options.compare) {
    const auto titled = [&](const char* title) {
      if (!options.common.json) std::cout << title << ": ";
      result[title] = to_json(answer(*model, tokenizer, prompt, config, options));
    };
    {
      const PeftModel::AdapterDisabled base_alone(*tuned);
      titled("base");
    }
    titled("tuned");
  } else {
    result = to_json(answer(*model, tokenizer, prompt, config, options));
  }
  if (const int status = signal_exit_status(); status != 0) return status;
  if (options.common.json) console.result(result);
  return kDone;
}

}  // namespace

Command generate_command() {
  return {"generate", "Complete a prompt or answer an instruction", [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
