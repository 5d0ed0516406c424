// The tutorial, step for step: a model in 4 bits learns to follow instructions with LoRA.
//
//   finetune_dolly MODEL_FOLDER databricks-dolly-15k.jsonl [OUTPUT_FOLDER [ROWS]]
#include <lorapp/lorapp.hpp>

#include <cstdint>
#include <iostream>
#include <memory>
#include <string>

using namespace lorapp;

namespace {

/// The tuned model's answer, and the untuned base's beside it.
void ask(PeftModel& model, const Tokenizer& tokenizer, const Instruction& question) {
  const std::string prompt = PromptTemplate::alpaca().render_prompt(question);
  const GenerationConfig config{.max_new_tokens = 150};
  const auto answer = [&] { return generate(model, tokenizer, prompt, config).text; };

  std::cout << "\n### " << question.instruction << '\n';
  {
    const PeftModel::AdapterDisabled base_alone(model);
    std::cout << "base:  " << answer() << '\n';
  }
  std::cout << "tuned: " << answer() << '\n';
}

void run(const std::string& model_folder,
         const std::string& data_file,
         const std::string& output_folder,
         std::int64_t rows) {
  // 1. The model, its linear layers in 4-bit NormalFloat. The file is read tensor by tensor: the
  //    dense model is never in memory.
  const Tokenizer tokenizer = Tokenizer::from_pretrained(model_folder);
  const auto base = CausalLM::from_pretrained(
      model_folder, {.quant_config = QuantConfig{.quant_type = QuantType::nf4}});

  // 2. LoRA: the base is frozen, and every q_proj and v_proj gets two small trainable matrices.
  PeftModel model(base, LoraConfig{.r = 16,
                                   .lora_alpha = 32,
                                   .target_modules = {"q_proj", "v_proj"},
                                   .lora_dropout = 0.05,
                                   .bias = "none",
                                   .task_type = "CAUSAL_LM"});
  model.print_trainable_parameters();

  // 3. The data: instructions through the Alpaca template, then through the tokenizer.
  const DollyDataset dolly = DollyDataset::from_file(data_file).take(rows);
  const TokenizedDataset examples =
      dolly.tokenize(tokenizer, PromptTemplate::alpaca(), {.max_length = 1024});
  std::cout << examples.size() << " examples, " << examples.num_tokens() << " tokens\n";

  // 4. Training. The defaults are the tutorial's too; they are written out to be seen.
  Trainer trainer(model,
                  TrainingArguments{.output_dir = output_folder,
                                    .per_device_train_batch_size = 4,
                                    .gradient_accumulation_steps = 4,
                                    .learning_rate = 2e-4,
                                    .num_train_epochs = 3,
                                    .lr_scheduler_type = SchedulerType::linear,
                                    .max_grad_norm = 1.0,
                                    .logging_steps = 10,
                                    .save_total_limit = 2},
                  examples);
  trainer.add_callback(std::make_shared<ProgressCallback>(std::cout, /*is_terminal=*/false));
  const TrainOutput result = trainer.train();
  std::cout << "mean loss " << result.train_loss << " over " << result.global_step << " steps, "
            << result.train_tokens_per_second << " tokens/s\n";

  // 5. The adapter, in PEFT's files: a few megabytes beside the base model.
  model.save_pretrained(output_folder);
  tokenizer.save_pretrained(output_folder);

  // 6. Answers before and after: a question of the data, and one that is not in it.
  ask(model, tokenizer, dolly[0]);
  ask(model, tokenizer, {.instruction = "Name three things that are found in a kitchen."});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::cerr << "usage: finetune_dolly MODEL_FOLDER DATA.jsonl [OUTPUT_FOLDER [ROWS]]\n";
    return 2;
  }
  try {
    run(argv[1], argv[2], argc > 3 ? argv[3] : "lora-dolly", argc > 4 ? std::stoll(argv[4]) : 1000);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
