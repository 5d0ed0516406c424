// lorapp quantize.
#include "process.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

using namespace lorapp::test;

TEST_SUITE("program") {
  TEST_CASE(
      "quantize: the folder generates as the model quantized on loading, and inspects as 4-bit") {
    const World world;
    const Outcome outcome =
        run_lorapp({"quantize", "--model", world.model(), "--output-dir", world.path("q"),
                    "--double-quant", "--max-shard-size", "50KB", "--json"});
    CHECK(outcome.status == 0);
    const Json result = outcome.json();
    CHECK(result["output_dir"] == world.path("q"));
    CHECK(result["bytes"].get<std::int64_t>() > 0);
    CHECK(std::filesystem::exists(world.folder() / "q/model.safetensors.index.json"));
    const auto tokens = [&](const std::string& model, const Arguments& more) {
      Arguments arguments = {"generate", "--model",          model, "--prompt", "The dog",
                             "--json",   "--max-new-tokens", "8"};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments).json()["tokens"];
    };
    CHECK(tokens(world.path("q"), {}) == tokens(world.model(), {"--double-quant"}));
    CHECK(run_lorapp({"inspect", "--model", world.path("q"), "--json"}).status == 0);
  }

  TEST_CASE(
      "quantize: a full output folder, no format and a wrong size are errors that write nothing") {
    const World world;
    world.folder().write("full/file", "x");
    const auto status = [&](const Arguments& more) {
      Arguments arguments = {"quantize", "--model", world.model()};
      arguments.insert(arguments.end(), more.begin(), more.end());
      return run_lorapp(arguments).status;
    };
    CHECK(status({"--output-dir", world.path("full")}) == 1);
    CHECK(files_in(world.path("full")).size() == 1);
    CHECK(status({"--output-dir", world.path("q"), "--quant-type", "none"}) == 2);
    CHECK(status({"--output-dir", world.path("q"), "--max-shard-size", "0"}) == 2);
    CHECK(status({"--output-dir", world.path("q"), "--max-shard-size", "5 elephants"}) == 2);
    CHECK(status({}) == 2);
    const Outcome full =
        run_lorapp({"quantize", "--model", world.model(), "--output-dir", world.path("q")},
                   {.file_size_limit = 1000});
    CHECK(full.status == 1);
    CHECK_FALSE(std::filesystem::exists(world.path("q")));
  }
}
