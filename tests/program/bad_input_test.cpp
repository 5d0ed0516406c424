// Every kind of broken input ends with status 1 and one message that names it, and writes nothing.
#include "process.hpp"

#include "support/scoped_variable.hpp"
#include "support/tiny_tokenizer.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

using namespace lorapp::test;

namespace {

namespace fs = std::filesystem;

/// Runs finetune on a world that `damage` has changed.
void check_refused(const std::function<void(const World&)>& damage,
                   const Arguments& more,
                   const std::vector<std::string>& parts) {
  const World world;
  damage(world);
  const Outcome outcome = run_lorapp(world.finetune(more));
  CAPTURE(outcome.err);
  CHECK(outcome.status == 1);
  CHECK(outcome.out.empty());
  CHECK(contains(outcome.err, "lorapp: error: "));
  CHECK_FALSE(contains(outcome.err, "frame #"));
  for (const std::string& part : parts) {
    CAPTURE(part);
    CHECK(contains(outcome.err, part));
  }
  CHECK(files_in(world.path("out")).empty());
}

void replace_in(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = read_file(file);
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  std::ofstream(file, std::ios::binary) << text;
}

void untouched(const World&) {}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("bad input: a truncated or lying safetensors file") {
    check_refused(
        [](const World& world) {
          const fs::path file = world.path("model/model.safetensors");
          fs::resize_file(file, fs::file_size(file) / 2);
        },
        {}, {"model.safetensors"});
    check_refused(
        [](const World& world) {
          const std::string bytes = read_file(world.path("model/model.safetensors"));
          world.folder().write("model/model.safetensors",
                               std::string("\xff\xff\xff\xff\xff\xff\xff\x7f") + bytes.substr(8));
        },
        {}, {"model.safetensors"});
    check_refused(
        [](const World& world) {
          replace_in(world.path("model/model.safetensors"), "[320,32]", "[320,31]");
        },
        {}, {"model.safetensors"});
  }

  TEST_CASE("bad input: a shard that the index names is missing") {
    check_refused(
        [](const World& world) {
          fs::rename(world.path("model/model.safetensors"),
                     world.path("model/model-00001-of-00002.safetensors"));
          world.folder().write("model/model.safetensors.index.json",
                               R"({"metadata": {}, "weight_map": {
                                   "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
                                   "lm_head.weight": "model-00002-of-00002.safetensors"}})");
        },
        {}, {"model-00002-of-00002.safetensors"});
  }

  TEST_CASE("bad input: an unknown architecture and tensors that do not fit the config") {
    check_refused(
        [](const World& world) {
          std::string text = read_file(world.path("model/config.json"));
          for (std::size_t at; (at = text.find("mistral")) != std::string::npos;) {
            text.replace(at, 7, "mamba9");
          }
          for (std::size_t at; (at = text.find("Mistral")) != std::string::npos;) {
            text.replace(at, 7, "Mamba9");
          }
          world.folder().write("model/config.json", text);
        },
        {}, {"config.json", "Mamba9ForCausalLM", "MistralForCausalLM"});
    check_refused(
        [](const World& world) {
          replace_in(world.path("model/config.json"), "\"num_hidden_layers\": 2",
                     "\"num_hidden_layers\": 3");
        },
        {}, {"model.layers.2."});
  }

  TEST_CASE("bad input: no model, no tokenizer, a tokenizer larger than the embedding") {
    check_refused([](const World& world) { fs::remove_all(world.model()); }, {}, {"model"});
    check_refused([](const World& world) { fs::remove(world.path("model/tokenizer.model")); }, {},
                  {"tokenizer.model"});
    check_refused(
        [](const World& world) {
          world.folder().write("model/added_tokens.json", R"({"<extra>": 320})");
        },
        {}, {"321", "320"});
  }

  TEST_CASE("bad input: every bad line of a data file is in one message, by number") {
    check_refused(
        [](const World& world) {
          world.folder().write("data.jsonl",
                               "{\"instruction\": \"a\", \"response\": \"b\"}\n"
                               "\n"
                               "{\"instruction\": \"a\", \"response\"\n"
                               "{\"instruction\": \"a\"}\n"
                               "{\"instruction\": null, \"response\": \"b\"}\n"
                               "{\"instruction\": \"a\", \"response\": \"\"}\n"
                               "{\"instruction\": \"a\", \"response\": 7}\n");
        },
        {}, {"data.jsonl", "line 2", "line 3", "line 4", "line 5", "line 6", "line 7"});
    check_refused([](const World& world) { world.folder().write("data.jsonl", ""); }, {},
                  {"data.jsonl"});
    check_refused([](const World& world) { fs::remove(world.data()); }, {}, {"data.jsonl"});
  }

  TEST_CASE("bad input: an example that loses every label to --max-length") {
    check_refused(untouched, {"--max-length", "20", "--no-train-on-inputs"}, {"max_length"});
  }

  TEST_CASE("bad input: LoRA settings that cannot be, with the nearest names of a wrong target") {
    check_refused(untouched, {"--target-modules", "q_prj"}, {"q_prj", "q_proj"});
    check_refused(untouched, {"--lora-dropout", "1.5"}, {"dropout"});
    const World world;
    Arguments arguments = world.finetune();
    arguments[static_cast<std::size_t>(std::ranges::find(arguments, "--lora-r") -
                                       arguments.begin() + 1)] = "0";
    const Outcome outcome = run_lorapp(arguments);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "r is 0"));
  }

  TEST_CASE("bad input: training settings that cannot be") {
    check_refused(untouched, {"--learning-rate", "-1"}, {"learning_rate"});
    check_refused(untouched, {"--template", "no-such-template"}, {"no-such-template"});
    check_refused(untouched, {"--init-adapter", "no-such-adapter"}, {"no-such-adapter"});
    check_refused(untouched, {"--resume-from-checkpoint", "last"}, {"checkpoint"});
    check_refused(untouched, {"--device", "cuda"}, {"cuda"});
  }

  TEST_CASE("bad input: a device that cannot be used is named before its model is looked for") {
    const Outcome outcome = run_lorapp(
        {"generate", "--model", "nobody/nothing", "--device", "cuda:999", "--prompt", "x"});
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "--device cuda:999 cannot be used"));
    CHECK_FALSE(contains(outcome.err, "nobody/nothing"));
  }

  TEST_CASE("bad input: an instruction set that is not there is refused") {
    const World world;
    const ScopedVariable variable("LORAPP_FORCE_ISA", "sse9");
    const Outcome outcome = run_lorapp(world.finetune());
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "LORAPP_FORCE_ISA names \"sse9\""));
    CHECK(files_in(world.path("out")).empty());
  }

  TEST_CASE("bad input: a loss that is not finite names its step and where the last good one is") {
    const World world;
    const Outcome outcome = run_lorapp(world.finetune({"--learning-rate", "1e30"}));
    CAPTURE(outcome.err);
    CHECK(outcome.status == 1);
    for (const char* part : {"step 2", "nan", "checkpoint-1"}) CHECK(contains(outcome.err, part));
    for (const std::string& file : files_in(world.path("out"))) {
      CHECK(file.starts_with("checkpoint-1/"));
    }
  }

  TEST_CASE("bad input: a weight that is not finite is named") {
    check_refused(
        [](const World& world) {
          // One weight becomes NaN: the last bytes of the file are those of the last tensor.
          std::string bytes = read_file(world.path("model/model.safetensors"));
          bytes.replace(bytes.size() - 4, 4, std::string("\x00\x00\xc0\x7f", 4));
          world.folder().write("model/model.safetensors", bytes);
        },
        {"--quant-type", "none"}, {"model.norm.weight", "not finite"});
  }

  TEST_CASE("bad input: a prompt that fills the context, settings outside their range") {
    const World world;
    std::string long_prompt;
    for (int i = 0; i < 600; ++i) long_prompt += "x y ";
    const auto refused = [&](const Arguments& more, const std::string& part) {
      Arguments arguments = {"generate", "--model", world.model()};
      arguments.insert(arguments.end(), more.begin(), more.end());
      const Outcome outcome = run_lorapp(arguments);
      CAPTURE(outcome.err);
      CHECK(outcome.status == 1);
      CHECK(contains(outcome.err, part));
    };
    refused({"--prompt", long_prompt}, "max_position_embeddings");
    refused({"--prompt", "x", "--do-sample", "--temperature", "0"}, "temperature");
    refused({"--prompt", "x", "--adapter", world.path("none")}, "none");
  }
}
