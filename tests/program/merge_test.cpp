// lorapp merge.
#include "process.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

using namespace lorapp::test;

namespace {

// A world with an adapter in "out" that has learned something.
struct Tuned {
  World world;

  Tuned() { REQUIRE(run_lorapp(world.finetune({"--learning-rate", "0.05"})).status == 0); }

  Arguments merge(const Arguments& more = {}) const {
    Arguments arguments = {"merge",           "--model",      world.model(),  "--adapter",
                           world.path("out"), "--output-dir", world.path("m")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

  double loss(const Arguments& more) const {
    Arguments arguments = {"eval", "--data", world.data(), "--json", "--compute-dtype", "float32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_lorapp(arguments).json()["loss"].get<double>();
  }
};

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("merge: the folder evaluates as the adapter on the weights it was merged onto") {
    const Tuned tuned;
    const World& world = tuned.world;
    const Arguments adapted = {"--model", world.model(), "--adapter", world.path("out")};
    const auto with = [&](const Arguments& more) {
      Arguments all = adapted;
      all.insert(all.end(), more.begin(), more.end());
      return tuned.loss(all);
    };
    const Arguments merged = {"--model", world.path("m"), "--quant-type", "none"};
    const Outcome original = run_lorapp(tuned.merge({"--json"}));
    CAPTURE(original.err);
    REQUIRE(original.status == 0);
    CHECK(original.json()["onto"] == "original");
    CHECK(tuned.loss(merged) == doctest::Approx(with({"--quant-type", "none"})).epsilon(1e-5));

    const Outcome onto = run_lorapp(tuned.merge(
        {"--json", "--onto", "dequantized", "--double-quant", "--overwrite-output-dir"}));
    CAPTURE(onto.err);
    REQUIRE(onto.status == 0);
    CHECK(tuned.loss(merged) == doctest::Approx(with({"--double-quant"})).epsilon(1e-5));

    const Outcome again =
        run_lorapp(tuned.merge({"--json", "--onto", "requantized", "--overwrite-output-dir"}));
    REQUIRE(again.status == 0);
    CHECK(again.json()["quantized_weights"].get<int>() > 0);
    CHECK(again.json()["worst_relative_error"].get<double>() > 0.01);
    CHECK(tuned.loss({"--model", world.path("m")}) == doctest::Approx(with({})).epsilon(0.05));
  }

  TEST_CASE(
      "merge: calibration compares with the adapter on 4 bits, and the report lists weights") {
    const Tuned tuned;
    const World& world = tuned.world;
    const auto calibrate = [&](const std::string& onto) {
      const Outcome outcome = run_lorapp(tuned.merge(
          {"--json", "--onto", onto, "--calibration", world.data(), "--compute-dtype", "float32",
           "--report", world.path("report.json"), "--overwrite-output-dir"}));
      CAPTURE(outcome.err);
      REQUIRE(outcome.status == 0);
      return outcome.json();
    };
    const Json exact = calibrate("dequantized");
    const Json& kl = exact["calibration"];
    CHECK(kl["mean_kl"].get<double>() < 1e-8);
    CHECK(kl["same_top"] == 1);
    CHECK(kl["merged_perplexity"].get<double>() ==
          doctest::Approx(kl["adapter_perplexity"].get<double>()).epsilon(1e-5));
    const Json off = calibrate("original");
    CHECK(off["calibration"]["mean_kl"].get<double>() > 1e-6);
    CHECK(off["calibration"]["max_kl"].get<double>() >=
          off["calibration"]["mean_kl"].get<double>());

    const Json report = Json::parse(read_file(world.path("report.json")));
    CHECK(report["calibration"] == off["calibration"]);
    CHECK(report["weights"].size() == 14);
    int changed = 0;
    for (const Json& weight : report["weights"]) {
      changed += weight["changed"].get<bool>() ? 1 : 0;
      CHECK((weight["relative_update"].get<double>() > 0) == weight["changed"].get<bool>());
      CHECK(weight["relative_error"].get<double>() > 0.01);
    }
    CHECK(changed == off["changed_weights"].get<int>());
  }

  TEST_CASE("merge: --gguf leaves a file for llama.cpp in the folder") {
    const Tuned tuned;
    const Outcome outcome = run_lorapp(tuned.merge({"--json", "--gguf", "bf16"}));
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);
    const std::string path = tuned.world.path("m") + "/model-bf16.gguf";
    CHECK(outcome.json()["gguf"]["path"] == path);
    CHECK(outcome.json()["gguf"]["bytes"] == std::filesystem::file_size(path));
    CHECK(read_file(path).substr(0, 4) == "GGUF");
  }

  TEST_CASE(
      "merge: a wrong command line is 2, a job that fails is 1, and neither leaves a folder") {
    const Tuned tuned;
    const World& world = tuned.world;
    CHECK(run_lorapp({"merge", "--model", world.model()}).status == 2);
    CHECK(run_lorapp(tuned.merge({"--onto", "nothing"})).status == 2);
    CHECK(run_lorapp(tuned.merge({"--gguf", "q4_0"})).status == 2);
    CHECK(run_lorapp(tuned.merge({"--onto", "dequantized", "--quant-type", "none"})).status == 2);
    CHECK(run_lorapp(tuned.merge({"--calibration", world.path("missing")})).status == 1);
    CHECK(run_lorapp(tuned.merge(), {.file_size_limit = 1000}).status == 1);
    CHECK_FALSE(std::filesystem::exists(world.path("m")));
    world.folder().write("m/letter.txt", "dear");
    CHECK(run_lorapp(tuned.merge()).status == 1);
    CHECK(run_lorapp(tuned.merge({"--overwrite-output-dir"})).status == 1);
    CHECK(files_in(world.path("m")).size() == 1);
  }
}
