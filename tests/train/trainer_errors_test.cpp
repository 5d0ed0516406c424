#include "run.hpp"
#include "support/file_size_limit.hpp"

#include <lorapp/nn/traverse.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <unistd.h>
#include <limits>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// Poisons a weight of the model.
void poison(PeftModel& model) {
  const torch::NoGradGuard no_grad;
  // All of them: attention on a CPU may take a score that is NaN for a masked one.
  for (const auto& layer : model.adapted_layers()) {
    torch::Tensor a = layer.adapter->a();
    a.fill_(std::numeric_limits<float>::quiet_NaN());
  }
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("errors: an output folder that holds anything is refused before any work") {
  const TemporaryFolder folder;
  folder.write("out/notes.txt", "mine");
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  const auto before = values_of(model);
  const std::string message = error_of([&] { Trainer(model, args, tiny_dataset(22)).train(); });
  CHECK(contains(message, "not empty"));
  CHECK(contains(message, "overwrite_output_dir"));
  CHECK(same_bits(values_of(model), before));
  args.overwrite_output_dir = true;
  std::filesystem::create_directories(folder / "out/checkpoint-500");
  Trainer(model, args, tiny_dataset(22)).train();
  CHECK(read_file(folder / "out/notes.txt") == "mine");
  CHECK_FALSE(std::filesystem::exists(folder / "out/checkpoint-500"));  // of another run
  folder.write("file", "x");
  args.output_dir = (folder / "file").string();
  CHECK(
      contains(error_of([&] { Trainer(model, args, tiny_dataset(22)).train(); }), "not a folder"));
  args.output_dir = (folder / "file/below").string();
  CHECK(contains(error_of([&] { args.check_output_dir(); }), "file is not a folder"));
  args.output_dir = (folder / "new/below").string();
  CHECK_NOTHROW(args.check_output_dir());
  CHECK_FALSE(std::filesystem::exists(folder / "new"));
  std::filesystem::create_directory(folder / "sealed");
  std::filesystem::permissions(folder / "sealed", std::filesystem::perms::owner_read);
  if (::access((folder / "sealed").c_str(), W_OK) == 0) {
    MESSAGE("skipped: this user may write into any folder");
  } else {
    args.output_dir = (folder / "sealed/out").string();
    CHECK(contains(error_of([&] { args.check_output_dir(); }), "cannot be written"));
  }
}

TEST_CASE("errors: a loss that is not finite names the step and the examples; its past is saved") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  args.shuffle = false;
  Trainer trainer(model, args, tiny_dataset(22));
  trainer.add_callback(std::make_shared<AtStep>(1, [&](TrainerControl&) { poison(model); }));
  const std::string message = error_of([&] { trainer.train(); });
  CAPTURE(message);
  CHECK(contains(message, "step 2: the loss is"));
  CHECK(contains(message, "nan"));
  CHECK(contains(message, "examples 9, 10, 11"));
  CHECK(contains(message, "checkpoint-1"));
  CHECK(std::filesystem::exists(folder / "out/checkpoint-1/optimizer.safetensors"));

  PeftModel first = tiny_peft();
  poison(first);
  args.output_dir = (folder / "first").string();
  CHECK(contains(error_of([&] { Trainer(first, args, tiny_dataset(22)).train(); }),
                 "step 1: the loss is"));
  CHECK_FALSE(std::filesystem::exists(folder / "first"));
}

TEST_CASE("errors: what is not finite never reaches a weight") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft(0);
  TrainingArguments args = tiny_args(folder / "out");
  {
    // Finite losses, but B's gradient overflows: A is huge while B is zero.
    const torch::NoGradGuard no_grad;
    torch::Tensor(model.adapted_layers()[0].adapter->a()).fill_(3e38f);
  }
  const auto before = values_of(model);
  const std::string message = error_of([&] { Trainer(model, args, tiny_dataset(22)).train(); });
  CHECK(contains(message, "step 1: the"));
  CHECK(contains(message, "in examples"));
  CHECK(same_bits(values_of(model), before));
}

TEST_CASE("errors: a full disk ends the run and leaves the previous checkpoint whole") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  args.save_steps = 3;
  args.save_total_limit = 1;
  Trainer trainer(model, args, tiny_dataset(22));
  std::unique_ptr<FileSizeLimit> limit;
  trainer.add_callback(std::make_shared<AtStep>(
      5, [&](TrainerControl&) { limit = std::make_unique<FileSizeLimit>(2000); }));
  const std::string message = error_of([&] { trainer.train(); });
  limit.reset();
  CHECK(contains(message, ".safetensors"));
  const auto checkpoints = list_checkpoints(folder / "out");
  REQUIRE(checkpoints.size() == 1);
  CHECK(checkpoints[0].filename() == "checkpoint-3");
  for (const auto& entry : std::filesystem::directory_iterator(folder / "out")) {
    CHECK(entry.path().filename() == "checkpoint-3");  // nothing half-written beside it
  }
  PeftModel again = tiny_peft();
  CHECK(Trainer(again, args, tiny_dataset(22)).train("last").global_step == 9);
}

TEST_CASE("errors: data and models that cannot train are refused with the reason") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder / "out");
  const auto train = [&](auto& subject, TokenizedDataset data) {
    return error_of([&] { Trainer(subject, args, data).train(); });
  };
  CHECK(contains(train(model, TokenizedDataset()), "data set is empty"));
  Example unscored{{1, 2, 3}, {1, kIgnoreLabel, kIgnoreLabel}};
  CHECK(contains(train(model, TokenizedDataset({unscored, unscored})),
                 "no token is scored in examples"));
  {
    const PeftModel::AdapterDisabled guard(model);
    CHECK(contains(train(model, tiny_dataset(5)), "switched off"));
  }
  model.merge();
  CHECK(contains(train(model, tiny_dataset(5)), "merged"));
  model.unmerge();
  model.base()->parameters()[0].requires_grad_(true);
  CHECK(contains(train(model, tiny_dataset(5)), "requires gradients but is not part"));
  model.base()->parameters()[0].requires_grad_(false);

  const auto plain = tiny_model();
  for (auto& parameter : plain->parameters()) parameter.requires_grad_(false);
  CHECK(contains(train(*plain, tiny_dataset(5)), "no parameter that requires gradients"));
  args.eval_strategy = "steps";
  CHECK(contains(train(model, tiny_dataset(5)), "no evaluation data set"));
  args.learning_rate = -1;
  CHECK(contains(train(model, tiny_dataset(5)), "learning_rate is -1"));
}

TEST_SUITE_END();
