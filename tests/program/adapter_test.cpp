// Adapters in the program: LoRA's rarer options, what inspect says of them, lorapp convert.
#include "process.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

using namespace lorapp::test;

namespace {

namespace fs = std::filesystem;

Json adapter_config(const World& world, const std::string& folder = "out") {
  return Json::parse(read_file(world.folder() / folder / "adapter_config.json"));
}

std::vector<std::int64_t> tokens(const World& world, const Arguments& more) {
  Arguments arguments = {"generate", "--model", world.model(),      "--prompt",
                         "The dog",  "--json",  "--max-new-tokens", "8"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  const Outcome outcome = run_lorapp(arguments);
  CAPTURE(outcome.err);
  REQUIRE(outcome.status == 0);
  return outcome.json()["tokens"];
}

const Arguments kRare = {"--rank-pattern",
                         "layers.1.self_attn.q_proj=2",
                         "--alpha-pattern",
                         "v_proj=7.5",
                         "--exclude-modules",
                         "layers.0.self_attn.v_proj",
                         "--layers-to-transform",
                         "0,1",
                         "--modules-to-save",
                         "norm,lm_head",
                         "--trainable-token-indices",
                         "5,3",
                         "--init-lora-weights",
                         "gaussian"};

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("finetune: LoRA's rarer options are in adapter_config.json, and inspect shows them") {
    const World world;
    const Outcome outcome = run_lorapp(world.finetune(kRare));
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    const Json config = adapter_config(world);
    CHECK(config["rank_pattern"] == Json{{"layers.1.self_attn.q_proj", 2}});
    CHECK(config["alpha_pattern"] == Json{{"v_proj", 7.5}});
    CHECK(config["exclude_modules"] == Json{"layers.0.self_attn.v_proj"});
    CHECK(config["layers_to_transform"] == Json{0, 1});
    CHECK(config["modules_to_save"] == Json{"norm", "lm_head"});
    CHECK(config["trainable_token_indices"] == Json{5, 3});
    CHECK(config["init_lora_weights"] == "gaussian");

    const Json shown = run_lorapp({"inspect", world.path("out"), "--json"}).json();
    CHECK(shown["rank_pattern"] == config["rank_pattern"]);
    CHECK(shown["modules_to_save"] == config["modules_to_save"]);
    CHECK_FALSE(shown.contains("lora_bias"));
    // It answers with it, too.
    CHECK(tokens(world, {"--adapter", world.path("out")}).size() > 0);
  }

  TEST_CASE("finetune: the same command resumes; another rank pattern or saved module does not") {
    const World world;
    Arguments first = kRare;
    first.insert(first.end(), {"--save-steps", "1"});
    REQUIRE(run_lorapp(world.finetune(first)).status == 0);
    const auto resume = [&](Arguments more) {
      more.insert(more.end(), {"--resume-from-checkpoint", world.path("out/checkpoint-1")});
      return run_lorapp(world.finetune(more, "again"));
    };
    const Outcome same = resume(kRare);
    CAPTURE(same.err);
    CHECK(same.status == 0);
    const Outcome other = resume(
        {"--rank-pattern", "q_proj=2", "--modules-to-save", "norm", "--overwrite-output-dir"});
    CHECK(other.status == 1);
    CHECK(contains(other.err, "--rank-pattern contradicts"));
    CHECK(contains(other.err,
                   "--modules-to-save norm contradicts the adapter, which has lm_head,norm"));
  }

  TEST_CASE("finetune: all-linear goes on from an adapter on all layers, and from no other") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--target-modules", "all-linear"}, "all")).status == 0);
    REQUIRE(run_lorapp(world.finetune({}, "two")).status == 0);
    const auto go_on = [&](const char* from, const char* to) {
      return run_lorapp(world.finetune(
          {"--target-modules", "all-linear", "--init-adapter", world.path(from)}, to));
    };
    CHECK(go_on("all", "from_all").status == 0);
    const Outcome other = go_on("two", "from_two");
    CHECK(other.status == 1);
    CHECK(contains(other.err, "all-linear means 14 layers, and the adapter is on 4"));
  }

  TEST_CASE("finetune: a pattern without a number, a negative token and two targets are exit 2") {
    const World world;
    const std::vector<Arguments> wrong = {
        {"--rank-pattern", "q_proj"},
        {"--rank-pattern", "=4"},
        {"--rank-pattern", "q_proj=4.5"},
        {"--alpha-pattern", "q_proj=much"},
        {"--trainable-token-indices", "-1"},
        {"--trainable-token-indices", "3,,4"},
        {"--trainable-token-indices", "=3"},
        {"--layers-to-transform", "first"},
        {"--init-lora-weights", "zeros"},
        {"--target-modules", "q_proj", "--target-modules-regex", ".*q_proj"}};
    for (const Arguments& arguments : wrong) {
      CAPTURE(arguments);
      CHECK(run_lorapp(world.finetune(arguments)).status == 2);
    }
    CHECK_FALSE(fs::exists(world.path("out")));
  }

  TEST_CASE("finetune: a regular expression chooses the layers") {
    const World world;
    REQUIRE(
        run_lorapp(world.finetune({"--target-modules-regex", R"(.*\.1\..*(q|k)_proj)"})).status ==
        0);
    CHECK(adapter_config(world)["target_modules"] == R"(.*\.1\..*(q|k)_proj)");
  }

  TEST_CASE("convert: an adapter is written for llama.cpp and for MLX, and comes back from MLX") {
    const World world;
    REQUIRE(run_lorapp(world.finetune({"--learning-rate", "0.1"})).status == 0);
    const auto convert = [&](const std::string& from, const char* to, const char* output) {
      return run_lorapp({"convert", "--model", world.model(), "--adapter", world.path(from), "--to",
                         to, "--output", world.path(output), "--json"});
    };
    const Outcome gguf = convert("out", "gguf", "adapter.gguf");
    CAPTURE(gguf.err);
    REQUIRE(gguf.status == 0);
    CHECK(gguf.json()["format"] == "gguf");
    CHECK(read_file(world.path("adapter.gguf")).substr(0, 4) == "GGUF");
    REQUIRE(convert("out", "mlx", "mlx").status == 0);
    CHECK(fs::exists(world.path("mlx/adapters.safetensors")));
    REQUIRE(convert("mlx", "peft", "back").status == 0);
    const auto original = tokens(world, {"--adapter", world.path("out")});
    CHECK(tokens(world, {"--adapter", world.path("back")}) == original);
    CHECK(original != tokens(world, {}));

    const Outcome taken = convert("out", "mlx", "mlx");
    CHECK(taken.status == 1);
    CHECK(contains(taken.err, "is there already"));
  }
}
