// lorapp merge: an adapter added to its base, with a report on what the sum lost, and as GGUF.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "options.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/peft/export_gguf.hpp>
#include <lorapp/peft/merge_pretrained.hpp>
#include <lorapp/train/divergence.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <system_error>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  DataOptions calibration{};
  std::string adapter{};
  std::string output_dir{};
  std::optional<std::string> onto{};
  bool overwrite_output_dir = false;
  std::uint64_t max_shard_size = static_cast<std::uint64_t>(kDefaultShardBytes);
  std::string report{};
  std::string gguf{};

  void add_to(CLI::App& app) {
    model.add_to(app);
    app.add_option("--adapter", adapter, "Adapter folder")->required();
    app.add_option("--output-dir", output_dir, "Folder to write, new or empty")->required();
    add_switch(app, "overwrite-output-dir", overwrite_output_dir,
               "Replace the model folder that stands there");
    app.add_option("--onto", onto,
                   "What the update is added to: the original weights, their values after "
                   "quantization, or these and the sum quantized again")
        ->check(CLI::IsMember({"original", "dequantized", "requantized"}))
        ->default_str("original; dequantized where the model is 4-bit");
    app.add_option("--max-shard-size", max_shard_size,
                   "Largest file of weights: bytes, or with a unit, 500MB")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
        ->check(at_least(1))
        ->default_str("5GB");
    app.add_option("--report", report, "JSON file for what each weight gained and lost");
    app.add_option("--gguf", gguf, "Write OUTPUT_DIR/model-TYPE.gguf for llama.cpp as well")
        ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}));
    calibration.add_to(app, "--calibration", /*required=*/false);
    common.add_to(app);
  }
};

Json number_or_null(const std::optional<double>& number) {
  return number ? Json(*number) : Json(nullptr);
}

Json to_json(const MergedWeight& weight) {
  return {{"name", weight.name},
          {"shape", weight.shape},
          {"changed", weight.changed},
          {"quantized", weight.quantized},
          {"relative_update", number_or_null(weight.relative_update())},
          {"relative_error", number_or_null(weight.relative_error())},
          {"max_abs_error", weight.max_abs_error},
          {"seen_norm", weight.seen_norm},
          {"update_norm", weight.update_norm},
          {"error_norm", weight.error_norm}};
}

Json to_json(const Divergence& divergence) {
  return {{"mean_kl", divergence.mean_kl},
          {"max_kl", divergence.max_kl},
          {"same_top", divergence.same_top},
          {"adapter_perplexity", divergence.reference.perplexity()},
          {"merged_perplexity", divergence.other.perplexity()},
          {"tokens", divergence.reference.tokens},
          {"examples", divergence.reference.examples}};
}

/// The adapter on the base as it was trained against the folder that was written.
Divergence calibrate(const Options& options,
                     const Tokenizer& tokenizer,
                     const TokenizedDataset& examples,
                     MergeOnto onto,
                     const Console& console) {
  const auto tuned = load_adapter(options.model.load(tokenizer, console), options.adapter,
                                  options.model.model, console);
  LoadOptions load = options.model.load_options();
  load.dtype.reset();
  if (onto != MergeOnto::requantized) load.quant_config.reset();
  console.say("Loading " + options.output_dir);
  const auto merged = CausalLM::from_pretrained(options.output_dir, load);
  return compare_models(*tuned, *merged, examples);
}

/// Writes the file under another name first, so that it appears whole or not at all.
void write_report(const std::filesystem::path& path, const Json& report) {
  const std::filesystem::path unfinished = path.string() + ".unfinished";
  {
    std::ofstream file(unfinished, std::ios::binary);
    file << report.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
    file.flush();
    if (!file) {
      file.close();
      std::error_code ignored;
      std::filesystem::remove(unfinished, ignored);
      throw Error("report", path.string() + ": cannot be written");
    }
  }
  std::filesystem::rename(unfinished, path);
}

int run(const Options& options) {
  MergeOptions merge;
  const LoadOptions load = options.model.load_options();
  if (options.onto) merge.onto = parse_merge_onto(*options.onto);
  merge.quant_config = load.quant_config;
  if (merge.onto.value_or(MergeOnto::original) != MergeOnto::original && !load.quant_config &&
      !ModelConfig::from_pretrained(options.model.folder()).quantization_config) {
    throw CLI::ValidationError("--quant-type",
                               "--onto " + *options.onto + " needs nf4 or fp4, found none");
  }
  merge.dtype = load.dtype;
  merge.overwrite = options.overwrite_output_dir;
  merge.max_shard_bytes = static_cast<std::int64_t>(options.max_shard_size);
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  std::optional<Tokenizer> tokenizer;
  TokenizedDataset examples;
  if (!options.calibration.data.empty()) {  // read first, so that a wrong file costs no time
    tokenizer = Tokenizer::from_pretrained(options.model.folder());
    examples = options.calibration.tokenize(options.calibration.read(), *tokenizer,
                                            options.model.folder(), console);
  }

  console.say("Merging " + options.adapter + " into " + options.model.model);
  const MergeReport written =
      merge_pretrained(options.model.folder(), options.adapter, options.output_dir, merge);
  Json result = {{"output_dir", options.output_dir},
                 {"onto", merge_onto_name(written.onto)},
                 {"bytes", written.bytes},
                 {"changed_weights", written.changed_weights},
                 {"quantized_weights", written.quantized_weights},
                 {"dense_weights", written.dense_weights},
                 {"untied_head", written.untied_head}};
  if (const MergedWeight* worst = written.worst()) {
    result["worst_weight"] = worst->name;
    result["worst_relative_error"] = number_or_null(worst->relative_error());
  }
  if (tokenizer) {
    result["calibration"] =
        to_json(calibrate(options, *tokenizer, examples, written.onto, console));
  }
  if (!options.gguf.empty()) {
    const auto path =
        std::filesystem::path(options.output_dir) / ("model-" + options.gguf + ".gguf");
    console.say("Writing " + path.string());
    const GgufFile file =
        export_gguf(options.output_dir, path, {.type = parse_gguf_type(options.gguf)});
    result["gguf"] = {{"path", path.string()}, {"bytes", file.bytes}};
  }
  if (!options.report.empty()) {
    Json report = result;
    report["weights"] = Json::array();
    for (const MergedWeight& weight : written.weights) report["weights"].push_back(to_json(weight));
    write_report(options.report, report);
    result["report"] = options.report;
  }
  result["peak_memory_bytes"] = peak_memory_bytes();
  console.result(result);
  return kDone;
}

}  // namespace

Command merge_command() {
  return {"merge", "Adds an adapter to its base, writes the folder, and measures what was lost",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
