// Loading, tuning and asking, with the tutorial's settings.
#include "experiment.hpp"

#include <chrono>
#include <fstream>
#include <set>

namespace quickstart {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::int64_t kMaxNewTokens = 24;  // the longest answer has fewer than ten

std::string trimmed(const std::string& text) {
  const std::size_t begin = text.find_first_not_of(' ');
  if (begin == std::string::npos) return "";
  return text.substr(begin, text.find_last_not_of(' ') - begin + 1);
}

}  // namespace

std::filesystem::path default_base() { return LORAPP_QUICKSTART_BASE; }

std::shared_ptr<lorapp::CausalLM> load_base(const std::filesystem::path& dir) {
  // The residual stream in fp32: many CPUs multiply bf16 by converting every number on the way.
  return lorapp::CausalLM::from_pretrained(
      dir, {.quant_config = lorapp::QuantConfig{.quant_type = lorapp::QuantType::nf4},
            .dtype = torch::kFloat32});
}

std::shared_ptr<lorapp::PeftModel> tune(std::shared_ptr<lorapp::CausalLM> base,
                                        const lorapp::Tokenizer& tokenizer,
                                        const std::filesystem::path& dolly_file,
                                        const std::filesystem::path& output_dir,
                                        std::uint64_t seed,
                                        std::ostream* progress,
                                        bool is_terminal) {
  lorapp::LoraConfig config;
  config.r = 16;
  config.lora_alpha = 32;
  config.target_modules = {"q_proj", "v_proj"};
  config.lora_dropout = 0.05;
  auto model = std::make_shared<lorapp::PeftModel>(std::move(base), config, seed);
  const auto rows = lorapp::DollyDataset::from_jsonl(dolly_file)
                        .tokenize(tokenizer, lorapp::PromptTemplate::alpaca(),
                                  {.train_on_inputs = kTrainOnInputs});
  lorapp::TrainingArguments arguments;
  arguments.output_dir = output_dir.string();
  arguments.per_device_train_batch_size = 4;
  arguments.gradient_accumulation_steps = 4;
  arguments.learning_rate = kLearningRate;
  arguments.num_train_epochs = 3;
  arguments.logging_steps = 10;
  arguments.overwrite_output_dir = true;
  arguments.seed = seed;
  lorapp::Trainer trainer(*model, arguments, rows);
  if (progress != nullptr) {
    model->print_trainable_parameters(*progress);
    trainer.add_callback(std::make_shared<lorapp::ProgressCallback>(*progress, is_terminal));
  }
  trainer.train();
  return model;
}

Score ask_all(lorapp::CausalLM& model,
              const lorapp::Tokenizer& tokenizer,
              const std::vector<Question>& questions) {
  const auto prompt_template = lorapp::PromptTemplate::alpaca();
  const auto start = Clock::now();
  Score score;
  for (const Question& question : questions) {
    const std::string prompt = prompt_template.render_prompt(
        {.instruction = question.instruction, .context = question.context});
    const auto result =
        lorapp::generate(model, tokenizer, prompt, {.max_new_tokens = kMaxNewTokens});
    const bool stopped = result.finish_reason == lorapp::FinishReason::eos;
    score.exact += stopped && result.text == question.answer ? 1 : 0;
    score.prefix += result.text.starts_with(question.answer) ? 1 : 0;
    score.texts.push_back(result.text);
  }
  score.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return score;
}

Score ask_all_few_shot(lorapp::CausalLM& model,
                       const lorapp::Tokenizer& tokenizer,
                       const std::vector<Question>& questions,
                       const std::vector<Question>& examples,
                       std::uint64_t seed) {
  const auto start = Clock::now();
  Score score;
  for (const Question& question : questions) {
    const std::string prompt = few_shot_prompt(question, examples, seed + score.texts.size());
    const auto result = lorapp::generate(model, tokenizer, prompt,
                                         {.max_new_tokens = kMaxNewTokens, .stop_strings = {"\n"}});
    const std::string text = trimmed(result.text);
    score.exact += text == question.answer ? 1 : 0;
    score.prefix += text.starts_with(question.answer) ? 1 : 0;
    score.texts.push_back(text);
  }
  score.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return score;
}

void write_dolly_file(const std::filesystem::path& path, const std::vector<Question>& questions) {
  std::ofstream out(path, std::ios::binary);
  out << dolly_jsonl(questions);
  out.close();
  LORAPP_CHECK(out, "quickstart", path.string(), ": cannot be written");
}

std::size_t overlap(const std::vector<Question>& held_out, const std::vector<Question>& tuning) {
  std::set<std::pair<const Relation*, std::string>> tuned;
  for (const Question& question : tuning) {
    tuned.emplace(question.fact->relation, question.fact->entity);
  }
  std::size_t shared = 0;
  for (const Question& question : held_out) {
    shared += tuned.count({question.fact->relation, question.fact->entity});
  }
  return shared;
}

}  // namespace quickstart
