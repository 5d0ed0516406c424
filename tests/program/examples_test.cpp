// The example programs run, and say what they are there to show.
#include "process.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

using namespace lorapp::test;

namespace {

Outcome example(const char* name, const Arguments& arguments) {
  return run_process(std::filesystem::path(LORAPP_EXAMPLES_FOLDER) / name, arguments);
}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("examples: the tutorial trains, saves, and answers before and after") {
    const World world;
    const Outcome outcome =
        example("finetune_dolly", {world.model(), world.data(), world.path("tutorial"), "8"});
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    for (const char* text : {"trainable params: ", "8 examples", "base: ", "tuned: "}) {
      CAPTURE(text);
      CHECK(contains(outcome.out, text));
    }
    const Outcome answer =
        example("load_and_generate", {world.model(), "One two", world.path("tutorial")});
    CHECK(answer.status == 0);
    CHECK(contains(answer.out, "tokens/s]"));

    const Outcome merged =
        example("merge", {world.model(), world.path("tutorial"), world.path("merged")});
    CAPTURE(merged.err);
    CHECK(merged.status == 0);
    const auto loss = [&](const Arguments& more) {
      Arguments arguments = {"eval", "--data", world.data(), "--quant-type",
                             "none", "--json", "--model"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments).json()["loss"].get<double>();
    };
    CHECK(
        loss({world.path("merged")}) ==
        doctest::Approx(loss({world.model(), "--adapter", world.path("tutorial")})).epsilon(1e-5));
  }

  TEST_CASE("examples: own data and an own adapter learn without any file") {
    const Outcome data = example("own_dataset", {"40"});
    CAPTURE(data.err);
    CHECK(data.status == 0);
    CHECK(contains(data.out, "loss after 40 steps"));
    const Outcome adapter = example("own_adapter", {});
    CAPTURE(adapter.err);
    CHECK(adapter.status == 0);
    const auto loss_at = [&](const std::string& step) {
      const std::size_t at = adapter.out.find(step + " loss ");
      REQUIRE(at != std::string::npos);
      return std::stod(adapter.out.substr(at + step.size() + 6));
    };
    CHECK(loss_at("step 100") < loss_at("step 20") - 0.2);
  }

  TEST_CASE("examples: quantize shows both formats, of a file too") {
    const World world;
    CHECK(contains(example("quantize", {}).out, "nf4"));
    const Outcome file = example("quantize", {world.path("model/model.safetensors")});
    CHECK(file.status == 0);
    CHECK(contains(file.out, "model.layers.1.mlp.down_proj.weight"));
    CHECK(contains(file.out, "fp4"));
  }

  TEST_CASE("examples: wrong arguments are a usage line, wrong files an error") {
    CHECK(example("finetune_dolly", {}).status == 2);
    CHECK(example("finetune_dolly", {"no-model", "no-data"}).status == 1);
    CHECK(example("load_and_generate", {"x"}).status == 2);
    CHECK(example("merge", {"x"}).status == 2);
    CHECK(example("quantize", {"no-file"}).status == 1);
  }
}
