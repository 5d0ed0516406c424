#include "run.hpp"

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <set>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE_BEGIN("train");

TEST_CASE("trainer: steps, windows and log entries are transformers' for the same numbers") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft(0);
  TrainingArguments args = tiny_args(folder / "out");
  args.save_strategy = "no";
  Trainer trainer(model, args, tiny_dataset(22));
  CHECK(trainer.max_steps() == 9);
  const TrainOutput output = trainer.train();
  CHECK(output.global_step == 9);
  CHECK_FALSE(output.stopped);
  CHECK(output.num_input_tokens_seen == 3 * tiny_dataset(22).num_tokens());

  const auto& history = trainer.state().log_history;
  REQUIRE(history.size() == 5);  // steps 2, 4, 6, 8 and the summary
  CHECK(history[0].at("step") == 2);
  CHECK(history[0].at("epoch") == 6.0 / 8);  // micro-batches done of the epoch's
  CHECK(history[1].at("epoch") == 1 + 3.0 / 8);
  CHECK(history[2].at("epoch") == 2);  // the last window of an epoch is what is left
  CHECK(history[0].at("learning_rate") == doctest::Approx(2.5e-3));  // that of step 2 of 2 warm-up
  CHECK(history[4].at("train_loss") == output.train_loss);
  CHECK(history[4].count("total_flos") == 1);
  CHECK(history[3].at("loss") < history[0].at("loss"));
}

TEST_CASE("trainer: the logged loss is the unrounded mean over the steps since the last entry") {
  const TemporaryFolder folder;
  const auto losses = [&](double every, const char* name) {
    PeftModel model = tiny_peft();
    TrainingArguments args = tiny_args(folder / name);
    args.save_strategy = "no";
    args.logging_steps = every;
    Trainer trainer(model, args, tiny_dataset(22));
    trainer.train();
    std::vector<double> values;
    for (const LogEntry& entry : trainer.state().log_history) {
      if (entry.contains("loss")) values.push_back(entry.at("loss"));
    }
    return values;
  };
  const auto each = losses(1, "a");
  const auto third = losses(3, "b");
  REQUIRE(each.size() == 9);
  REQUIRE(third.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(third[i] == (each[3 * i] + each[3 * i + 1] + each[3 * i + 2]) / 3);
  }
}

TEST_CASE("trainer: entries once an epoch hold the mean loss of its steps, and may be left out") {
  const TemporaryFolder folder;
  const auto losses = [&](const std::string& strategy) {
    TrainingArguments args = tiny_args(folder / strategy);
    args.logging_steps = 1;
    args.logging_strategy = strategy;
    PeftModel model = tiny_peft();
    Trainer trainer(model, args, tiny_dataset(22));
    trainer.train();
    std::vector<double> values;
    for (const LogEntry& entry : trainer.state().log_history) {
      if (entry.contains("loss")) values.push_back(entry.at("loss"));
    }
    return values;
  };
  const auto steps = losses("steps");
  const auto epochs = losses("epoch");
  REQUIRE(steps.size() == 9);
  REQUIRE(epochs.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(epochs[i] == doctest::Approx((steps[3 * i] + steps[3 * i + 1] + steps[3 * i + 2]) / 3));
  }
  CHECK(losses("no").empty());
}

TEST_CASE("trainer: data_seed orders the data in place of the seed") {
  TrainingArguments args;
  args.seed = 3;
  const auto of_seed = lorapp::detail::DataPlan::of(args, 10).order(1);
  args.seed = 42;
  CHECK(lorapp::detail::DataPlan::of(args, 10).order(1) != of_seed);
  args.data_seed = 3;
  CHECK(lorapp::detail::DataPlan::of(args, 10).order(1) == of_seed);
}

TEST_CASE("trainer: accumulation 4 x 4 is batch 16 x 1, loss, gradient norm and weights") {
  const TemporaryFolder folder;
  const auto run = [&](std::int64_t batch, std::int64_t accumulation, const char* name) {
    PeftModel model = tiny_peft(0);  // dropout masks are drawn by micro-batch
    TrainingArguments args = tiny_args(folder / name);
    args.save_strategy = "no";
    args.per_device_train_batch_size = batch;
    args.gradient_accumulation_steps = accumulation;
    args.logging_steps = 1;
    Trainer trainer(model, args, tiny_dataset(37));
    trainer.train();
    return std::pair(trainer.state().log_history, values_of(model));
  };
  const auto [log_a, values_a] = run(4, 4, "a");
  const auto [log_b, values_b] = run(16, 1, "b");
  REQUIRE(log_a.size() == log_b.size());
  for (std::size_t i = 0; i + 1 < log_a.size(); ++i) {
    for (const char* key : {"loss", "grad_norm", "learning_rate"}) {
      CHECK(log_a[i].at(key) == doctest::Approx(log_b[i].at(key)).epsilon(1e-6));
    }
  }
  for (std::size_t i = 0; i < values_a.size(); ++i) {
    CHECK((values_a[i] - values_b[i]).abs().max().item<double>() < 1e-5);
  }
}

TEST_CASE("trainer: without shuffling, the first step is the loss over the first window") {
  const TemporaryFolder folder;
  const TokenizedDataset data = tiny_dataset(22);
  PeftModel model = tiny_peft(0);
  std::vector<Example> first;
  for (std::int64_t i = 0; i < 9; ++i) first.push_back(data.get(i));
  const double want = evaluate_loss(model, TokenizedDataset(first), 2).loss;
  TrainingArguments args = tiny_args(folder / "out");
  args.shuffle = false;
  args.logging_steps = 1;
  args.max_steps = 1;
  Trainer trainer(model, args, data);
  trainer.train();
  CHECK(trainer.state().log_history[0].at("loss") == doctest::Approx(want).epsilon(1e-6));
}

TEST_CASE("trainer: the epoch's order is torch.randperm(seed + epoch)") {
  lorapp::detail::DataPlan plan{5, 2, 1, 42, true};
  CHECK(plan.order(1) == torch_randperm(5, 43));
  plan.shuffle = false;
  CHECK(plan.order(3) == std::vector<std::int64_t>{0, 1, 2, 3, 4});
  CHECK(plan.micro_batches() == 3);
}

TEST_CASE("trainer: checkpointing changes no bit of the result, threads aside") {
  const TemporaryFolder folder;
  const auto run = [&](CheckpointingMode mode, const char* name) {
    PeftModel model = tiny_peft();
    TrainingArguments args = tiny_args(folder / name);
    args.save_strategy = "no";
    args.gradient_checkpointing = mode != CheckpointingMode::none;
    if (args.gradient_checkpointing) args.gradient_checkpointing_mode = mode;
    Trainer(model, args, tiny_dataset(22)).train();
    return values_of(model);
  };
  const auto without = run(CheckpointingMode::none, "a");
  CHECK(same_bits(without, run(CheckpointingMode::selective, "b")));
  CHECK(same_bits(without, run(CheckpointingMode::full, "c")));
}

TEST_CASE("trainer: only adapters change, and the mode of the model is restored") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  model.eval();
  const auto before = values_of(model);
  TrainingArguments args = tiny_args(folder / "out");
  Trainer(model, args, tiny_dataset(22)).train();
  CHECK_FALSE(model.is_training());
  std::size_t i = 0;
  for (const auto& parameter : model.named_parameters()) {
    const bool changed = !parameter.value().equal(before[i++]);
    CHECK(changed == contains(parameter.key(), ".lora."));
    CHECK_FALSE(parameter.value().grad().defined());
  }
}

TEST_CASE("trainer: a plain model trains all its parameters, in bfloat16 with master copies too") {
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const TemporaryFolder folder;
    ModelConfig config = tiny_config();
    config.dtype = dtype;
    const auto model = tiny_model(7, config);
    const auto before = values_of(*model);
    TrainingArguments args = tiny_args(folder / "out");
    args.num_train_epochs = 6;
    Trainer trainer(*model, args, tiny_dataset(22));
    const double loss_before = evaluate_loss(*model, tiny_dataset(22), 8).loss;
    trainer.train();
    CHECK(evaluate_loss(*model, tiny_dataset(22), 8).loss < loss_before - 0.3);
    std::size_t i = 0;
    for (const auto& parameter : model->parameters()) {
      CHECK_FALSE(parameter.equal(before[i++]));
      CHECK((parameter.scalar_type() == dtype));
    }
    CHECK(std::filesystem::exists(folder / "out/checkpoint-18/model.safetensors"));
  }
}

TEST_CASE("trainer: the output folder holds the newest checkpoints and the two JSON files") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  args.save_steps = 2;
  Trainer(model, args, tiny_dataset(22)).train();
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
    names.insert(entry.path().filename().string());
  }
  CHECK(names == std::set<std::string>{"checkpoint-8", "checkpoint-9", "trainer_state.json",
                                       "training_args.json"});
  names.clear();
  for (const auto& entry : std::filesystem::directory_iterator(folder / "out/checkpoint-9")) {
    names.insert(entry.path().filename().string());
  }
  CHECK(names == std::set<std::string>{"README.md", "adapter_config.json",
                                       "adapter_model.safetensors", "optimizer.safetensors",
                                       "progress.json", "trainer_state.json",
                                       "training_args.json"});
  CHECK(list_checkpoints(folder / "out").front().filename() == "checkpoint-8");
  // checkpoint-10 comes after checkpoint-9, not after checkpoint-1.
  std::filesystem::create_directory(folder / "out/checkpoint-10");
  CHECK(find_checkpoint("last", folder / "out").filename() == "checkpoint-10");
}

TEST_CASE("trainer: trainer_state.json has the keys of transformers 5.23, sorted") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  Trainer(model, args, tiny_dataset(22)).train();
  const std::string text = read_file(folder / "out/trainer_state.json");
  const auto state = nlohmann::ordered_json::parse(text);
  std::vector<std::string> keys;
  for (const auto& item : state.items()) keys.push_back(item.key());
  CHECK(keys == std::vector<std::string>{"best_global_step",
                                         "best_metric",
                                         "best_model_checkpoint",
                                         "epoch",
                                         "eval_steps",
                                         "global_step",
                                         "is_hyper_param_search",
                                         "is_local_process_zero",
                                         "is_world_process_zero",
                                         "log_history",
                                         "logging_steps",
                                         "max_steps",
                                         "num_input_tokens_seen",
                                         "num_train_epochs",
                                         "save_steps",
                                         "stateful_callbacks",
                                         "total_flos",
                                         "train_batch_size",
                                         "trial_name",
                                         "trial_params"});
  CHECK(state["global_step"] == 9);
  CHECK(state["num_train_epochs"] == 3);
  CHECK(state["log_history"][0]["step"].is_number_integer());
  CHECK(state["log_history"][0].size() == 5);
  CHECK(contains(text, "\"epoch\": 3.0,"));
  const TrainerState again = TrainerState::from_file(folder / "out/trainer_state.json");
  again.save(folder / "again.json");
  CHECK(read_file(folder / "again.json") == text);
}

TEST_CASE("trainer: evaluation by steps and at the end, its loss over all scored tokens at once") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  args.eval_strategy = "steps";
  args.eval_steps = 4;
  args.save_strategy = "epoch";
  Trainer trainer(model, args, tiny_dataset(22), tiny_dataset(7, 2));
  trainer.train();
  std::vector<double> steps;
  for (const LogEntry& entry : trainer.state().log_history) {
    if (entry.contains("eval_loss")) steps.push_back(entry.at("step"));
  }
  CHECK(steps == std::vector<double>{4, 8, 9});
  const double last =
      trainer.state().log_history[trainer.state().log_history.size() - 2].at("eval_loss");
  CHECK(trainer.evaluate().loss == last);
  CHECK(evaluate_loss(model, tiny_dataset(7, 2), 1).loss == doctest::Approx(last).epsilon(1e-6));
  CHECK(list_checkpoints(folder / "out").size() == 2);  // of 3, 6 and 9
}

TEST_CASE("trainer: fractions of steps and epochs round up, max_steps rules over epochs") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  args.num_train_epochs = 1.1;
  CHECK(Trainer(model, args, tiny_dataset(22)).max_steps() == 4);  // ⌈1.1 · 3⌉
  args.max_steps = 7;
  args.logging_steps = 0.2;
  Trainer trainer(model, args, tiny_dataset(22));
  trainer.train();
  CHECK(trainer.state().logging_steps == 2);
  CHECK(trainer.state().num_train_epochs == 3);
  CHECK(trainer.state().epoch == 2 + 3.0 / 8);
}

TEST_CASE("trainer: global state of LibTorch is left alone") {
  const TemporaryFolder folder;
  torch::manual_seed(5);
  const torch::Tensor want = torch::rand({4});
  torch::manual_seed(5);
  const int threads = at::get_num_threads();
  const auto dtype = torch::get_default_dtype();
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  Trainer(model, args, tiny_dataset(22)).train();
  CHECK(want.equal(torch::rand({4})));
  CHECK(at::get_num_threads() == threads);
  CHECK(torch::get_default_dtype() == dtype);
  CHECK(torch::GradMode::is_enabled());
}

TEST_SUITE_END();
