// Twenty optimizer steps, and a run over real data, against transformers' Trainer and peft.
#include "golden_training.hpp"
#include "toy_model.hpp"

#include "support/golden.hpp"
#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/data/dolly.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/trainer.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdint>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// The entries of a run's log that belong to optimizer steps.
std::vector<LogEntry> steps_of(const TrainerState& state) {
  std::vector<LogEntry> steps;
  for (const LogEntry& entry : state.log_history) {
    if (entry.contains("loss")) steps.push_back(entry);
  }
  return steps;
}

}  // namespace

TEST_SUITE("golden training") {
  TEST_CASE(
      "twenty losses, learning rates and gradient norms are transformers', over a dense, an NF4 "
      "and "
      "a double-quantized base") {
    const OneThread one_thread;
    const auto golden = golden_json("training.json");
    const GoldenTensors adapters("training.safetensors");
    const std::vector<Example> examples = training_examples(golden);
    for (const std::string name : {"fp32", "nf4", "nf4_double"}) {
      CAPTURE(name);
      const bool twice = name == "nf4_double";
      const TemporaryFolder folder;
      const TrainingArguments args = training_arguments(golden, (folder / "out").string());
      PeftModel model =
          PeftModel::from_pretrained(load_toy(twice ? "mistral_4bit" : "mistral", name != "fp32"),
                                     golden_path("mistral/adapter"), /*is_trainable=*/true);
      Trainer trainer(model, args, TokenizedDataset(examples));
      const TrainOutput output = trainer.train();

      const auto& want = golden.at(name);
      const auto steps = steps_of(trainer.state());
      REQUIRE(steps.size() == want.at("loss").size());
      for (std::size_t i = 0; i < steps.size(); ++i) {
        CAPTURE(i);
        CHECK(relative_error(steps[i].at("loss"), want.at("loss")[i].get<double>()) <=
              (twice ? 2e-5 : 1e-5));
        CHECK(relative_error(steps[i].at("grad_norm"), want.at("grad_norm")[i].get<double>()) <=
              (twice ? 5e-4 : 1e-4));
        CHECK(steps[i].at("learning_rate") ==
              doctest::Approx(want.at("learning_rate")[i].get<double>()).epsilon(1e-12));
        CHECK(steps[i].at("epoch") == doctest::Approx(want.at("epoch")[i].get<double>()));
      }
      CHECK_GOLDEN(output.train_loss, want.at("train_loss").get<double>());
      for (const auto& [key, value] : model.adapter_state()) {
        const std::string& parameter = key;  // clang 14 captures no binding
        CAPTURE(parameter);
        // Adam divides by the root of a mean that may be tiny: rounding grows over twenty steps.
        const double error = relative_error(value, adapters[name + "." + parameter]);
        CHECK_MESSAGE(error <= 1e-4, error);
      }
    }
  }

  TEST_CASE(
      "a run over real rows gives the losses of transformers and peft from the same adapter") {
    LORAPP_NEEDS_SHARED_DATA(model_folder, "models/stories260K");
    LORAPP_NEEDS_SHARED_DATA(data_file, "dolly/databricks-dolly-15k.jsonl");
    const OneThread one_thread;
    const auto golden = golden_json("stories260k_finetune.json");
    const auto& options = golden.at("options");
    const Tokenizer tokenizer = Tokenizer::from_pretrained(model_folder);
    const TokenizedDataset data =
        DollyDataset::from_jsonl(data_file)
            .take(options.at("--take"))
            .tokenize(tokenizer, PromptTemplate::alpaca(),
                      {.max_length = options.at("--max-length").get<std::int64_t>()});
    CHECK(data.size() == golden.at("num_examples").get<std::int64_t>());
    CHECK(data.num_tokens() == golden.at("num_tokens").get<std::int64_t>());

    const TemporaryFolder folder;
    TrainingArguments args;
    args.output_dir = (folder / "out").string();
    args.per_device_train_batch_size = options.at("--per-device-train-batch-size");
    args.gradient_accumulation_steps = options.at("--gradient-accumulation-steps");
    args.learning_rate = options.at("--learning-rate");
    args.num_train_epochs = options.at("--num-train-epochs");
    args.warmup_steps = options.at("--warmup-steps");
    args.weight_decay = options.at("--weight-decay");
    args.max_grad_norm = options.at("--max-grad-norm");
    args.seed = options.at("--seed");
    args.logging_steps = options.at("--logging-steps");
    args.save_strategy = "no";
    PeftModel model = PeftModel::from_pretrained(CausalLM::from_pretrained(model_folder),
                                                 golden_path(golden.at("init_adapter")),
                                                 /*is_trainable=*/true);
    Trainer trainer(model, args, data);
    trainer.train();
    const auto steps = steps_of(trainer.state());
    const auto want = golden.at("log").at("loss").get<std::vector<double>>();
    REQUIRE(steps.size() == want.size());
    for (std::size_t i = 0; i < steps.size(); ++i) {
      CAPTURE(i);
      CHECK(std::abs(steps[i].at("loss") - want[i]) <= 1e-4);
    }
  }
}
