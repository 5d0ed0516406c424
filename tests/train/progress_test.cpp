#include "run.hpp"

#include <doctest/doctest.h>

#include <sstream>

using namespace lorapp;
using namespace lorapp::test;

namespace {

std::string output_of(bool is_terminal, const std::filesystem::path& folder) {
  std::ostringstream out;
  PeftModel model = tiny_peft();
  TrainingArguments args = tiny_args(folder);
  args.eval_strategy = "steps";
  args.eval_steps = 5;
  Trainer trainer(model, args, tiny_dataset(22), tiny_dataset(3, 2));
  trainer.add_callback(std::make_shared<ProgressCallback>(out, is_terminal));
  trainer.train();
  return out.str();
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE(
    "progress: without a terminal there are whole lines, one for each log entry, no controls") {
  const TemporaryFolder folder;
  const std::string text = output_of(false, folder / "out");
  CHECK(text.find('\r') == std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(text.ends_with('\n'));
  for (const char* part : {"step 2/9", "step 8/9", "loss ", "grad norm ", "lr ", "tokens/s",
                           " left", "step 5  evaluation loss ", "checkpoint-9"}) {
    CHECK_MESSAGE(contains(text, part), part, " in ", text);
  }
}

TEST_CASE("progress: on a terminal a bar is redrawn each step and ends with a line feed") {
  const TemporaryFolder folder;
  const std::string text = output_of(true, folder / "out");
  for (const char* part :
       {"\r", "step 0/9", "step 1/9", "step 9/9", "epoch 3.00", "█", "tokens/s"}) {
    CHECK_MESSAGE(contains(text, part), part);
  }
  CHECK(text.ends_with('\n'));
}

TEST_CASE("progress: the bar of a run that fails is ended, so that the error begins a line") {
  const TemporaryFolder folder;
  std::ostringstream out;
  PeftModel model = tiny_peft();
  {
    Trainer trainer(model, tiny_args(folder / "out"), tiny_dataset(22));
    trainer.add_callback(std::make_shared<ProgressCallback>(out, /*is_terminal=*/true));
    trainer.add_callback(std::make_shared<AtStep>(
        2, [](TrainerControl&) { throw Error("test", "the run fails here"); }));
    CHECK_THROWS_AS(trainer.train(), Error);
  }
  CHECK(contains(out.str(), "step 2/9"));
  CHECK(out.str().ends_with('\n'));
}

TEST_CASE("progress: a callback that is null is refused") {
  const TemporaryFolder folder;
  PeftModel model = tiny_peft();
  Trainer trainer(model, tiny_args(folder / "out"), tiny_dataset(22));
  CHECK_THROWS_AS(trainer.add_callback(nullptr), Error);
}

TEST_SUITE_END();
