// lorapp finetune: the output folder, checkpoints, adapters to start from, interruption.
#include "process.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

using namespace lorapp::test;

namespace {

namespace fs = std::filesystem;

Json json_file(const fs::path& path) {
  const std::string text = read_file(path);
  CAPTURE(path.string());
  REQUIRE(Json::accept(text));
  return Json::parse(text);
}

/// The losses that trainer_state.json logged.
std::vector<double> losses(const fs::path& output) {
  std::vector<double> values;
  const Json state = json_file(output / "trainer_state.json");
  for (const Json& entry : state["log_history"]) {
    if (entry.contains("loss")) values.push_back(entry["loss"]);
  }
  return values;
}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("finetune: writes the promised files and the promised JSON object") {
    const World world;
    const Outcome outcome = run_lorapp(world.finetune({"--json", "--logging-steps", "1"}));
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    const Json result = outcome.json();
    CHECK(result.size() == 9);
    CHECK(result["output_dir"] == world.path("out"));
    CHECK(result["global_step"] == 2);
    CHECK(result["trainable_params"] == 4 * 2 * (32 + 32 + 32 + 16));
    CHECK(result["all_params"] > result["trainable_params"]);
    for (const char* number : {"train_loss", "train_runtime", "train_samples_per_second",
                               "train_tokens_per_second", "peak_memory_bytes"}) {
      CAPTURE(number);
      CHECK(result[number].get<double>() > 0);
    }
    CHECK(contains(outcome.err, "trainable params: 896 || all params: "));

    const fs::path output = world.path("out");
    for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "README.md",
                             "tokenizer.model", "tokenizer_config.json", "trainer_state.json",
                             "training_args.json", "checkpoint-2/adapter_model.safetensors"}) {
      CAPTURE(name);
      CHECK(fs::exists(output / name));
    }
    CHECK(json_file(output / "adapter_config.json")["base_model_name_or_path"] == world.model());
    CHECK(losses(output).size() == 2);
    for (const std::string& file : files_in(output)) CHECK_FALSE(contains(file, ".tmp-"));
  }

  TEST_CASE("finetune: an output folder that is not empty is refused before the model is read") {
    const World world;
    world.folder().write("out/notes.txt", "mine");
    const Outcome refused = run_lorapp(world.finetune());
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, world.path("out")));
    CHECK(contains(refused.err, "overwrite"));
    CHECK_FALSE(contains(refused.err, "Loading"));
    CHECK(files_in(world.path("out")) == Arguments{"notes.txt"});
    CHECK(run_lorapp(world.finetune({"--overwrite-output-dir"})).status == 0);
    CHECK(read_file(world.path("out/notes.txt")) == "mine");
  }

  TEST_CASE("finetune: the same command gives the same losses and the same adapter") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--logging-steps", "1"}, "a")).status == 0);
    REQUIRE(run_lorapp(world.finetune({"--logging-steps", "1"}, "b")).status == 0);
    CHECK(losses(world.path("a")) == losses(world.path("b")));
    CHECK(read_file(world.path("a/adapter_model.safetensors")) ==
          read_file(world.path("b/adapter_model.safetensors")));
  }

  TEST_CASE("finetune: --init-adapter starts where an adapter ended, and its configuration rules") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--learning-rate", "0.02", "--quiet"}, "first")).status ==
            0);
    Arguments second = world.finetune({"--init-adapter", world.path("first"), "--learning-rate",
                                       "1e-12", "--lora-dropout", "0", "--quiet"},
                                      "second");
    REQUIRE(run_lorapp(second).status == 0);
    const auto loss = [&](const char* adapter) {
      return run_lorapp({"eval", "--model", world.model(), "--adapter", world.path(adapter),
                         "--data", world.data(), "--json"})
          .json()["loss"]
          .get<double>();
    };
    CHECK(loss("second") == doctest::Approx(loss("first")).epsilon(1e-6));

    const Outcome contradicts = run_lorapp(world.finetune(
        {"--init-adapter", world.path("first"), "--lora-alpha", "5", "--target-modules", "k_proj"},
        "third"));
    CHECK(contradicts.status == 1);
    CHECK(contains(contradicts.err, "--lora-alpha"));
    CHECK(contains(contradicts.err, "--target-modules"));
    CHECK_FALSE(contains(contradicts.err, "--lora-r"));
    CHECK_FALSE(fs::exists(world.path("third")));
  }

  TEST_CASE("finetune: a resumed run ends with the bits of one that was never interrupted") {
    const World world;
    const Arguments steps = {"--logging-steps",    "1", "--save-steps", "1",
                             "--save-total-limit", "0"};
    REQUIRE(run_lorapp(world.finetune(steps, "whole")).status == 0);
    REQUIRE(run_lorapp(world.finetune(steps, "parts")).status == 0);
    fs::remove_all(world.path("parts/checkpoint-2"));
    fs::remove(world.path("parts/adapter_model.safetensors"));
    Arguments resume = steps;
    resume.insert(resume.end(), {"--resume-from-checkpoint", "last"});
    const Outcome outcome = run_lorapp(world.finetune(resume, "parts"));
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(read_file(world.path("parts/adapter_model.safetensors")) ==
          read_file(world.path("whole/adapter_model.safetensors")));
    CHECK(losses(world.path("parts")) == losses(world.path("whole")));
  }

  TEST_CASE(
      "finetune: --torch-checkpoints leaves what transformers' Trainer and lorapp go on from") {
    const World world;
    const Arguments steps = {"--logging-steps", "1", "--save-steps", "1", "--torch-checkpoints"};
    REQUIRE(run_lorapp(world.finetune(steps, "whole")).status == 0);
    REQUIRE(run_lorapp(world.finetune(steps, "parts")).status == 0);
    fs::remove_all(world.path("parts/checkpoint-2"));
    // As a run in Python would have left it.
    for (const char* own : {"optimizer.safetensors", "progress.json", "training_args.json"}) {
      REQUIRE(fs::remove(world.path(std::string("parts/checkpoint-1/") + own)));
    }
    Arguments resume = steps;
    resume.insert(resume.end(), {"--resume-from-checkpoint", world.path("parts/checkpoint-1")});
    const Outcome outcome = run_lorapp(world.finetune(resume, "parts"));
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    CHECK(read_file(world.path("parts/adapter_model.safetensors")) ==
          read_file(world.path("whole/adapter_model.safetensors")));
    CHECK(losses(world.path("parts")) == losses(world.path("whole")));

    resume.insert(resume.end(), {"--weight-decay", "0.5"});
    const Outcome other = run_lorapp(world.finetune(resume, "parts"));
    CHECK(other.status == 1);
    CHECK(contains(other.err, "weight_decay was 0 "));
  }

  TEST_CASE("finetune: every mode of gradient checkpointing is noted and makes the same adapter") {
    const World world;
    const std::map<std::string, Arguments> options = {
        {"none", {}},
        {"full", {"--gradient-checkpointing"}},
        {"selective", {"--gradient-checkpointing-mode", "selective"}}};
    for (const auto& run : options) {
      CAPTURE(run.first);
      REQUIRE(run_lorapp(world.finetune(run.second, run.first)).status == 0);
      const Json written = json_file(world.path(run.first + "/training_args.json"));
      CHECK(written["gradient_checkpointing"] == (run.first != "none"));
      CHECK(written["gradient_checkpointing_mode"] ==
            (run.first == "selective" ? "selective" : "full"));
      CHECK(read_file(world.path(run.first + "/adapter_model.safetensors")) ==
            read_file(world.path("full/adapter_model.safetensors")));
    }
  }

  TEST_CASE("finetune: a schedule's own options are JSON, and a wrong one is a usage error") {
    const World world;
    const auto with = [&](const Arguments& more, const std::string& output) {
      Arguments arguments = {"--lr-scheduler-type", "cosine_with_restarts"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(world.finetune(arguments, output));
    };
    REQUIRE(with({"--lr-scheduler-kwargs", R"({"num_cycles": 2})", "--warmup-ratio", "0.1"}, "out")
                .status == 0);
    const Json written = json_file(world.path("out/training_args.json"));
    CHECK(written["lr_scheduler_kwargs"]["num_cycles"] == 2);
    CHECK(written["warmup_steps"] == 0.1);
    const Outcome unknown = with({"--lr-scheduler-kwargs", R"({"num_cycle": 2})"}, "unknown");
    CHECK(unknown.status == 2);
    CHECK(contains(unknown.err, "lr_scheduler_kwargs.num_cycle"));
    CHECK(with({"--lr-scheduler-kwargs", "2 cycles"}, "text").status == 2);
    CHECK(with({"--warmup-ratio", "1.5"}, "ratio").status == 2);
    CHECK(with({"--warmup-ratio", "0.1", "--warmup-steps", "3"}, "twice").status == 2);
  }

  TEST_CASE("finetune: a signal saves the state and ends with 130 or 143") {
    for (const auto& [signal, status] : {std::pair{SIGINT, 130}, std::pair{SIGTERM, 143}}) {
      const World world;
      const Arguments steps = {"--max-steps", "100000", "--logging-steps", "1"};
      const Outcome outcome =
          run_lorapp(world.finetune(steps), {.signal = signal, .signal_when = "loss"});
      CAPTURE(outcome.err);
      CHECK(outcome.status == status);
      CHECK(outcome.out.empty());
      const std::vector<std::string> files = files_in(world.path("out"));
      CHECK(std::ranges::any_of(files, [](const std::string& file) {
        return file.starts_with("checkpoint-") && contains(file, "adapter_model.safetensors");
      }));
      CHECK_FALSE(fs::exists(world.path("out/adapter_model.safetensors")));
      for (const std::string& file : files) CHECK_FALSE(contains(file, ".tmp-"));
    }
  }

  TEST_CASE("finetune: an output folder that cannot be made is found before anything is trained") {
    const World world;
    const Outcome outcome = run_lorapp(world.finetune({}, "data.jsonl/deep/out"));
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "data.jsonl/deep/out"));
    CHECK_FALSE(contains(outcome.err, "trainable params"));
    REQUIRE(run_lorapp(world.finetune({"--target-modules", "none"}, "new/out")).status == 1);
    CHECK_FALSE(std::filesystem::exists(world.path("new")));
  }

  TEST_CASE("finetune: a run that resumes elsewhere does not write into a folder in use") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({}, "a")).status == 0);
    world.folder().write("b/mine.txt", "x");
    const Outcome refused =
        run_lorapp(world.finetune({"--resume-from-checkpoint", world.path("a/checkpoint-2")}, "b"));
    CHECK(refused.status == 1);
    CHECK(contains(refused.err, "is not empty"));
    CHECK(files_in(world.path("b")) == std::vector<std::string>{"mine.txt"});
    CHECK(
        run_lorapp(world.finetune({"--resume-from-checkpoint", world.path("a/checkpoint-2")}, "a"))
            .status == 0);
  }

  TEST_CASE("finetune: evaluation data is scored, and --eval-split holds rows back") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--eval-data", world.data(), "--eval-steps", "1"}, "a"))
                .status == 0);
    int evaluations = 0;
    const Json state = json_file(world.path("a/trainer_state.json"));
    for (const Json& entry : state["log_history"]) {
      evaluations += entry.contains("eval_loss");
    }
    CHECK(evaluations == 2);
    const Outcome split = run_lorapp(world.finetune({"--eval-split", "0.25"}, "b"));
    CHECK(split.status == 0);
    CHECK(contains(split.err, "6 examples"));
    CHECK(contains(split.err, "2 examples"));
  }

  TEST_CASE("finetune: several data files, --skip and --take count in their order") {
    const World world;
    const Outcome outcome =
        run_lorapp(world.finetune({"--data", world.data(), "--skip", "5", "--take", "6"}));
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.err, "6 examples"));
    CHECK(run_lorapp(world.finetune({"--skip", "8"}, "other")).status == 1);
  }

  TEST_CASE("finetune: the tutorial's --fp16 is accepted on a CPU, with one note") {
    const World world;
    const Outcome outcome = run_lorapp(world.finetune({"--fp16"}));
    CHECK(outcome.status == 0);
    CHECK(contains(outcome.err, "note: --fp16"));
    CHECK(contains(outcome.err, "half precision is a GPU format; on this CPU products are"));
    const Outcome chosen =
        run_lorapp(world.finetune({"--fp16", "--compute-dtype", "bfloat16"}, "other"));
    CHECK(contains(chosen.err, "computed in bfloat16 (--compute-dtype)"));
    const Outcome dense = run_lorapp(world.finetune({"--fp16", "--quant-type", "none"}, "dense"));
    CHECK(contains(dense.err, "computed in the type of the weights (--dtype)"));
  }

  TEST_CASE("finetune: a full disk is one error, and no part of a file stays") {
    const World world;
    const Outcome outcome =
        run_lorapp(world.finetune({"--lora-r", "64"}), {.file_size_limit = 20000});
    CHECK(outcome.status != 0);
    Arguments arguments = world.finetune();
    arguments[std::ranges::find(arguments, "--lora-r") - arguments.begin() + 1] = "64";
    const Outcome full = run_lorapp(arguments, {.file_size_limit = 20000});
    CAPTURE(full.err);
    CHECK(full.status == 1);
    CHECK(contains(full.err, "File too large"));
    for (const std::string& file : files_in(world.path("out"))) {
      CAPTURE(file);
      CHECK_FALSE(contains(file, ".tmp-"));
      CHECK_FALSE(contains(file, "adapter_model.safetensors"));
    }
  }
}
