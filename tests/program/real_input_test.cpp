// Real models and data, compared with what transformers and peft give for them.
// Skipped, with a message, where the folder of real files is absent.
#include "process.hpp"
#include "support/shared_data.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

using namespace lorapp::test;

namespace {

namespace fs = std::filesystem;

std::string real(const char* name) { return shared_data(name).value().string(); }

Json golden(const char* name) {
  return Json::parse(read_file(fs::path(LORAPP_TEST_SOURCE_DIR) / "tests/golden" / name));
}

Arguments stories(const Arguments& more) {
  Arguments arguments = {"generate",     "--model", real("models/stories260K"),
                         "--quant-type", "none",    "--json"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string number(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("real input: stories260K says the text that its author publishes, 200 tokens") {
    if (shared_data_missing()) return;
    // The text ends where the 200th token (bos included) of a run of its own begins a new word.
    const Json result = run_lorapp(stories({"--prompt", "", "--max-new-tokens", "200"})).json();
    const std::string expected = read_file(real("models/stories260K/greedy_200_expected.txt"));
    CHECK(result["text"] == expected);
    CHECK(result["prompt_tokens"] == Json({1}));
    CHECK(result["tokens"].size() == 200);
  }

  TEST_CASE("real input: five prompts continue as transformers continues them") {
    if (shared_data_missing()) return;
    const Json reference = golden("stories260k_greedy.json");
    const std::string count = reference["max_new_tokens"].dump();
    for (const Json& expected : reference["continuations"]) {
      CAPTURE(expected["prompt"]);
      const Json result =
          run_lorapp(stories({"--prompt", expected["prompt"], "--max-new-tokens", count})).json();
      CHECK(result["prompt_tokens"] == expected["prompt_tokens"]);
      CHECK(result["tokens"] == expected["tokens"]);
    }
  }

  TEST_CASE("real input: finetune on 200 Dolly rows logs the losses of transformers and peft") {
    if (shared_data_missing()) return;
    const Json reference = golden("stories260k_finetune.json");
    const TemporaryFolder folder;
    const std::string output = (folder / "out").string();
    const fs::path adapter = fs::path(LORAPP_TEST_SOURCE_DIR) / "tests/golden" /
                             reference["init_adapter"].get<std::string>();
    Arguments arguments = {"finetune",
                           "--model",
                           real(("models/stories260K")),
                           "--data",
                           real("dolly/databricks-dolly-15k.jsonl"),
                           "--init-adapter",
                           adapter.string(),
                           "--output-dir",
                           output,
                           "--save-strategy",
                           "no"};
    for (const auto& [option, value] : reference["options"].items()) {
      arguments.insert(arguments.end(), {option, number(value)});
    }
    const Outcome outcome = run_lorapp(arguments);
    CAPTURE(outcome.err);
    REQUIRE(outcome.status == 0);

    std::vector<Json> entries;
    const Json state = Json::parse(read_file(fs::path(output) / "trainer_state.json"));
    for (const Json& entry : state["log_history"]) {
      if (entry.contains("loss")) entries.push_back(entry);
    }
    REQUIRE(entries.size() == reference["log"]["loss"].size());
    for (std::size_t step = 0; step < entries.size(); ++step) {
      CAPTURE(step);
      for (const char* field : {"loss", "grad_norm", "learning_rate"}) {
        CAPTURE(field);
        const double want = reference["log"][field][step];
        CHECK(entries[step][field].get<double>() == doctest::Approx(want).epsilon(1e-4));
      }
      CHECK(std::abs(entries[step]["loss"].get<double>() -
                     reference["log"]["loss"][step].get<double>()) <= 1e-4);
    }
  }

  TEST_CASE("real input: the mean loss of stories260K on its own text is the published one") {
    if (shared_data_missing()) return;
    const TemporaryFolder folder;
    const Json row = {{"text", read_file(real("models/stories260K/greedy_200_expected.txt"))}};
    const std::string data = folder.write("text.jsonl", row.dump() + "\n").string();
    const Json result = run_lorapp({"eval", "--model", real("models/stories260K"), "--data", data,
                                    "--quant-type", "none", "--no-append-eos", "--json"})
                            .json();
    CHECK(result["loss"].get<double>() == doctest::Approx(0.4734177).epsilon(1e-5));
  }

  TEST_CASE("real input: the metadata of Mistral-7B gives its parameters and those of LoRA") {
    if (shared_data_missing()) return;
    const Json model =
        run_lorapp({"inspect", real("models/mistral-7b-v0.1-metadata"), "--json", "--quiet"})
            .json();
    CHECK(model["parameters"] == 7241732096);
    CHECK(model["lora"]["trainable_params"] == 6815744);
    CHECK(model["lora"]["all_params"] == 7241732096 + 6815744);
  }

  TEST_CASE("real input: tokenize gives sentencepiece's ids, and the text back") {
    if (shared_data_missing()) return;
    const TemporaryFolder folder;
    for (const Json& reference : golden("tokenizer.json")) {
      const std::string model = real(reference["folder"].get<std::string>().c_str());
      CAPTURE(model);
      Json texts = Json::array();
      Json ids = Json::array();
      for (const Json& entry : reference["texts"]) {
        texts.push_back(entry["text"]);
        ids.push_back(entry["ids"]);
      }
      const std::string file = folder.write("texts.json", texts.dump()).string();
      const Json result = run_lorapp({"tokenize", "--model", model, "--data", file,
                                      "--no-special-tokens", "--json"})
                              .json();
      REQUIRE(result["tokens"].size() == ids.size());
      for (std::size_t i = 0; i < ids.size(); ++i) {
        CAPTURE(texts[i].dump());
        CHECK(result["tokens"][i] == ids[i]);
      }
    }
  }
}
