// The command line: help, options, exit status, what goes to stdout and what to stderr.
#include "process.hpp"

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <vector>

using namespace lorapp::test;

namespace {

const Arguments kCommon = {"--config", "--threads", "--json", "--quiet"};
const Arguments kModel = {"--model", "--device", "--quant-type",    "--double-quant",
                          "--dtype", "--seed",   "--compute-dtype", "--blocksize"};
const Arguments kData = {"--data",
                         "--format",
                         "--take",
                         "--skip",
                         "--template",
                         "--max-length",
                         "--no-append-eos",
                         "--append-eos",
                         "--train-on-inputs",
                         "--no-train-on-inputs"};

/// The options that docs/cli.md promises, by subcommand.
std::map<std::string, Arguments> promised_options() {
  std::map<std::string, Arguments> options = {
      {"finetune",
       {"--eval-data",
        "--eval-split",
        "--shuffle",
        "--no-shuffle",
        "--lora-r",
        "--lora-alpha",
        "--lora-dropout",
        "--target-modules",
        "--bias",
        "--use-rslora",
        "--init-adapter",
        "--output-dir",
        "--overwrite-output-dir",
        "--per-device-train-batch-size",
        "--gradient-accumulation-steps",
        "--learning-rate",
        "--num-train-epochs",
        "--max-steps",
        "--lr-scheduler-type",
        "--warmup-steps",
        "--optim",
        "--weight-decay",
        "--max-grad-norm",
        "--logging-steps",
        "--save-steps",
        "--save-total-limit",
        "--eval-steps",
        "--gradient-checkpointing",
        "--gradient-checkpointing-mode",
        "--resume-from-checkpoint",
        "--fp16",
        "--bf16"}},
      {"generate",
       {"--adapter", "--prompt", "--instruction", "--input", "--template", "--max-new-tokens",
        "--min-new-tokens", "--ignore-eos", "--do-sample", "--temperature", "--top-k", "--top-p",
        "--min-p", "--repetition-penalty", "--stop", "--no-stream", "--compare"}},
      {"eval", {"--adapter", "--generate"}},
      {"tokenize",
       {"--model", "--text", "--data", "--decode", "--no-special-tokens", "--parse-special"}},
      {"inspect", {"--model"}},
      {"download", {"--model", "--revision", "--include"}},
      {"info", {}}};
  const auto add = [&](const char* command, const Arguments& more) {
    options[command].insert(options[command].end(), more.begin(), more.end());
  };
  for (const char* command : {"finetune", "generate", "eval"}) {
    add(command, kModel);
    add(command, {"--quant-cache", "--head-8bit"});
  }
  for (const char* command : {"finetune", "eval"}) add(command, kData);
  for (auto& [command, list] : options) list.insert(list.end(), kCommon.begin(), kCommon.end());
  return options;
}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("command line: help is on stdout with status 0, and lists every promised option") {
    const Outcome top = run_lorapp({"--help"});
    CHECK(top.status == 0);
    for (const auto& [command, options] : promised_options()) {
      const auto& captured = command;  // clang 14 captures no binding
      CAPTURE(captured);
      CHECK(contains(top.out, command));
      const Outcome help = run_lorapp({command, "-h"});
      CHECK(help.status == 0);
      CHECK(help.err.empty());
      for (const std::string& option : options) {
        CAPTURE(option);
        CHECK(contains(help.out, option));
      }
    }
  }

  TEST_CASE("command line: help shows the tutorial's defaults") {
    const std::string help = run_lorapp({"finetune", "--help"}).out;
    for (const char* text : {"=16", "=32", "=0.05", "q_proj,v_proj", "=0.0002", "=nf4", "=1024",
                             "=alpaca", "=linear", "=42", "=none", "(default: on)"}) {
      CAPTURE(text);
      CHECK(contains(help, text));
    }
  }

  TEST_CASE("command line: what is wrong with it is status 2, one message on stderr, no stdout") {
    const std::vector<Arguments> wrong = {
        {},
        {"frobnicate"},
        {"--no-such-option"},
        {"info", "--no-such-option"},
        {"info", "extra"},
        {"info", "--threads", "0"},
        {"info", "--threads", "many"},
        {"tokenize", "--text", "x"},
        {"tokenize", "--model", "m", "--text", "x", "--data", "y"},
        {"generate", "--model", "m", "--prompt"},
        {"generate", "--model", "m"},
        {"generate", "--model", "m", "--prompt", "x", "--instruction", "y"},
        {"generate", "--model", "m", "--prompt", "x", "--input", "y"},
        {"generate", "--model", "m", "--prompt", "x", "--compare"},
        {"generate", "--model", "m", "--prompt", "x", "--quant-type", "int3"},
        {"generate", "--model", "m", "--prompt", "x", "--dtype", "float8"},
        {"generate", "--model", "m", "--prompt", "x", "--device", "tpu"},
        {"generate", "--model", "m", "--prompt", "x", "--device", "cuda:x"},
        {"generate", "--model", "m", "--prompt", "x", "--blocksize", "48"},
        {"generate", "--model", "m", "--prompt", "x", "--seed", "-1"},
        {"generate", "--model", "m", "--prompt", "x", "--seed", "99999999999999999999"},
        {"eval", "--model", "m"},
        {"eval", "--model", "m", "--data", "d", "--skip", "99999999999999999999"},
        {"finetune", "--model", "m", "--data", "d"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--fp16", "--bf16"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--take", "-1"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--eval-split", "2.5"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--eval-split", "1e300"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--eval-steps", "5"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o",
         "--gradient-checkpointing-mode", "none"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o",
         "--no-gradient-checkpointing", "--gradient-checkpointing-mode", "full"},
        {"finetune", "--model", "m", "--data", "d", "--output-dir", "o", "--init-adapter", "a",
         "--resume-from-checkpoint", "last"}};
    for (const Arguments& arguments : wrong) {
      std::string line;
      for (const std::string& argument : arguments) line += argument + " ";
      CAPTURE(line);
      const Outcome outcome = run_lorapp(arguments);
      CHECK(outcome.status == 2);
      CHECK(outcome.out.empty());
      CHECK(outcome.err.starts_with("lorapp: error: "));
    }
  }

  TEST_CASE("command line: an unknown subcommand is named, beside those there are") {
    const Outcome outcome = run_lorapp({"frobnicate"});
    CHECK(contains(outcome.err, "\"frobnicate\""));
    CHECK(contains(outcome.err, "finetune"));
  }

  TEST_CASE("command line: a number out of range is named with what was expected and found") {
    const Outcome outcome = run_lorapp({"eval", "--model", "m", "--data", "d", "--take", "0"});
    CHECK(contains(outcome.err, "--take: expected a whole number, 1 or more, found \"0\""));
  }

  TEST_CASE("command line: a single-valued option given twice is an error that names it") {
    for (const Arguments& twice : std::vector<Arguments>{{"--seed", "1", "--seed", "2"},
                                                         {"--append-eos", "--no-append-eos"}}) {
      Arguments arguments = {"eval", "--model", "m", "--data", "d"};
      arguments.insert(arguments.end(), twice.begin(), twice.end());
      const Outcome outcome = run_lorapp(arguments);
      CHECK(outcome.status == 2);
      CHECK(contains(outcome.err, twice[0]));
    }
  }

  TEST_CASE("command line: a config file gives the same options, and the command line wins") {
    const World world;
    const std::string config = world.folder().write("job.toml", R"(
# a comment
model = ")" + world.model() + R"("
prompt = "The # sign, [1, 2] and \"quotes\"\tstay"   # behind the value
max_new_tokens = 4
stop = ["never said 1", 'never said 2',]
quant-type = "none"
json = true
)");
    const Json from_file = run_lorapp({"generate", "--config", config}).json();
    const Json from_line = run_lorapp({"generate", "--model", world.model(), "--prompt",
                                       "The # sign, [1, 2] and \"quotes\"\tstay",
                                       "--max-new-tokens", "4", "--quant-type", "none", "--json"})
                               .json();
    CHECK(from_file["prompt_tokens"] == from_line["prompt_tokens"]);
    CHECK(from_file["tokens"] == from_line["tokens"]);
    CHECK(from_file["tokens"].size() == 4);
    const Json shorter =
        run_lorapp({"generate", "--config", config, "--max-new-tokens", "2"}).json();
    CHECK(shorter["tokens"].size() == 2);
  }

  TEST_CASE("command line: a config file that cannot be read as it stands is status 2") {
    const TemporaryFolder folder;
    const std::vector<std::pair<std::string, std::string>> broken = {
        {"threads = 1\nthreads = 2\n", "line 2"},
        {"thread = 1\n", "\"thread\""},
        {"threads\n", "line 1"},
        {"threads = \"1\n", "line 1"},
        {"threads = one\n", "line 1"},
        {"threads = [1\n", "line"},
        {"[info]\nthreads = 1\n", "line 1"},
        {"threads = 1 2\n", "line 1"},
        {"threads = [1, 2]\n", "--threads"}};
    for (const auto& [text, found] : broken) {
      const auto& captured = text;  // clang 14 captures no binding
      CAPTURE(captured);
      const Outcome outcome =
          run_lorapp({"info", "--config", folder.write("broken.toml", text).string()});
      CHECK(outcome.status == 2);
      CHECK(contains(outcome.err, found));
    }
    CHECK(run_lorapp({"info", "--config", (folder / "absent.toml").string()}).status == 2);
  }

  TEST_CASE("command line: info says what this build is") {
    const Json info = run_lorapp({"info", "--json", "--threads", "1"}).json();
    CHECK(info["version"].get<std::string>().find('.') != std::string::npos);
    CHECK(info["libtorch"].get<std::string>().starts_with("2."));
    CHECK(info["threads"] == 1);
    CHECK(info["isas"].back() == "scalar");
    CHECK(contains(run_lorapp({"info"}).out, "libtorch: "));
    CHECK(contains(run_lorapp({"--version"}).out, info["version"].get<std::string>()));
  }

  TEST_CASE("command line: results that cannot be written are not a success") {
    const Outcome outcome = run_lorapp({"info"}, {.stdout_path = "/dev/full"});
    CHECK(outcome.status == 1);
    CHECK(contains(outcome.err, "standard output"));
  }
}
