#include "run.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <atomic>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// The values that do not depend on the clock.
std::vector<LogEntry> losses_of(const Trainer& trainer) {
  std::vector<LogEntry> entries;
  for (const LogEntry& entry : trainer.state().log_history) {
    if (entry.contains("loss")) entries.push_back(entry);
  }
  return entries;
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("resume: a run cut anywhere and continued gives the bits of one that was not") {
  const TemporaryFolder folder;
  PeftModel whole = tiny_peft();
  Trainer uninterrupted(whole, tiny_args(folder / "whole"), tiny_dataset(22));
  uninterrupted.train();
  const auto want = values_of(whole);
  // In the middle of an epoch and of a logging interval (1, 5), at the end of an epoch (3), …
  for (const std::int64_t cut : {1, 3, 4, 5, 8}) {
    CAPTURE(cut);
    const std::filesystem::path out = folder / ("cut-" + std::to_string(cut));
    {
      PeftModel model = tiny_peft();
      Trainer trainer(model, tiny_args(out), tiny_dataset(22));
      trainer.add_callback(stop_after(cut));
      const TrainOutput output = trainer.train();
      CHECK(output.stopped);
      CHECK(output.global_step == cut);
    }
    PeftModel model(tiny_model(), LoraConfig{.r = 4, .lora_alpha = 8, .lora_dropout = 0.3}, 99);
    Trainer trainer(model, tiny_args(out), tiny_dataset(22));
    const TrainOutput output = trainer.train("last");
    CHECK(output.global_step == 9);
    CHECK(same_bits(values_of(model), want));
    CHECK(losses_of(trainer) == losses_of(uninterrupted));
    CHECK(trainer.state().total_flos == uninterrupted.state().total_flos);
    CHECK(read_file(out / "checkpoint-9/optimizer.safetensors") ==
          read_file(folder / "whole/checkpoint-9/optimizer.safetensors"));
    CHECK(read_file(out / "checkpoint-9/trainer_state.json") ==
          read_file(folder / "whole/checkpoint-9/trainer_state.json"));
  }
}

TEST_CASE("resume: a plain model continues bit for bit, in bfloat16 from its master copies") {
  for (const auto dtype : {torch::kFloat32, torch::kBFloat16}) {
    const TemporaryFolder folder;
    ModelConfig config = tiny_config();
    config.dtype = dtype;
    const auto whole = tiny_model(7, config);
    Trainer(*whole, tiny_args(folder / "whole"), tiny_dataset(22)).train();
    {
      const auto model = tiny_model(7, config);
      Trainer trainer(*model, tiny_args(folder / "cut"), tiny_dataset(22));
      trainer.add_callback(stop_after(4));
      trainer.train();
    }
    const auto model = tiny_model(8, config);
    Trainer(*model, tiny_args(folder / "cut"), tiny_dataset(22))
        .train(folder / "cut/checkpoint-4/");
    CHECK(same_bits(values_of(*model), values_of(*whole)));
  }
}

TEST_CASE("resume: the stop flag saves the last whole step, even where nothing else is saved") {
  const TemporaryFolder folder;
  PeftModel whole = tiny_peft();
  TrainingArguments args = tiny_args(folder / "whole");
  args.save_strategy = "no";
  Trainer(whole, args, tiny_dataset(22)).train();

  args.output_dir = (folder / "stopped").string();
  std::atomic<bool> stop = false;
  {
    PeftModel model = tiny_peft();
    Trainer trainer(model, args, tiny_dataset(22));
    trainer.add_callback(std::make_shared<AtStep>(5, [&stop](TrainerControl&) { stop = true; }));
    const TrainOutput output = trainer.train({}, &stop);
    CHECK(output.stopped);
    CHECK(output.global_step == 5);
  }
  CHECK(list_checkpoints(folder / "stopped").back().filename() == "checkpoint-5");
  PeftModel model = tiny_peft();
  Trainer(model, args, tiny_dataset(22)).train("last");
  CHECK(same_bits(values_of(model), values_of(whole)));

  // Stopped before the first step: nothing to save, nothing changed.
  args.output_dir = (folder / "early").string();
  PeftModel early = tiny_peft();
  const auto before = values_of(early);
  CHECK(Trainer(early, args, tiny_dataset(22)).train({}, &stop).global_step == 0);
  CHECK(same_bits(values_of(early), before));
  CHECK_FALSE(std::filesystem::exists(folder / "early"));  // so that the same run can be started
}

TEST_CASE("resume: a finished run has nothing left to do") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  Trainer(model, tiny_args(folder / "out"), tiny_dataset(22)).train();
  const auto values = values_of(model);
  const TrainOutput output =
      Trainer(model, tiny_args(folder / "out"), tiny_dataset(22)).train("last");
  CHECK(output.global_step == 9);
  CHECK_FALSE(output.stopped);
  CHECK(same_bits(values_of(model), values));
}

TEST_CASE("resume: more epochs continue an ended run") {
  const TemporaryFolder folder;
  TrainingArguments args = tiny_args(folder / "out");
  args.lr_scheduler_type = SchedulerType::constant;
  PeftModel model = tiny_peft();
  Trainer(model, args, tiny_dataset(22)).train();
  args.num_train_epochs = 4;
  CHECK(Trainer(model, args, tiny_dataset(22)).train("last").global_step == 12);
}

TEST_CASE("resume: what places the data differently is refused, all of it in one message") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  Trainer(model, tiny_args(folder / "out"), tiny_dataset(22)).train();
  TrainingArguments args = tiny_args(folder / "out");
  args.per_device_train_batch_size = 2;
  args.gradient_accumulation_steps = 5;
  args.seed = 1;
  args.shuffle = false;
  const std::string message =
      error_of([&] { Trainer(model, args, tiny_dataset(21)).train("last"); });
  for (const char* part :
       {"per_device_train_batch_size was 3 and is now 2",
        "gradient_accumulation_steps was 3 and is now 5", "seed was 42 and is now 1", "shuffle",
        "the number of examples was 22 and is now 21"}) {
    CHECK_MESSAGE(contains(message, part), message);
  }
  CHECK(contains(error_of([&] {
                   Trainer(model, tiny_args(folder / "out"), tiny_dataset(22, 3)).train("last");
                 }),
                 "other data"));
}

TEST_CASE("resume: a missing or damaged checkpoint is named") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  const auto resume = [&](const std::filesystem::path& from) {
    return error_of(
        [&] { Trainer(model, tiny_args(folder / "out"), tiny_dataset(22)).train(from); });
  };
  CHECK(contains(resume("last"), "no checkpoint to resume from"));
  CHECK(contains(resume(folder / "nothing"), "not a checkpoint folder"));
  Trainer(model, tiny_args(folder / "out"), tiny_dataset(22)).train();
  const std::filesystem::path checkpoint = folder / "out/checkpoint-9";
  const std::string optimizer = read_file(checkpoint / "optimizer.safetensors");
  folder.write("out/checkpoint-9/optimizer.safetensors", optimizer.substr(0, optimizer.size() / 2));
  CHECK(contains(resume("last"), "optimizer.safetensors"));
  folder.write("out/checkpoint-9/optimizer.safetensors", optimizer);
  folder.write("out/checkpoint-9/trainer_state.json", "{}");
  CHECK(contains(resume("last"), "global_step"));
}

TEST_SUITE_END();
