// lorapp quantize: a model folder rewritten in 4 bits, for lorapp and for transformers.
#include "command.hpp"
#include "console.hpp"
#include "options.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <memory>
#include <string>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  std::string output_dir{};
  std::uint64_t max_shard_size = static_cast<std::uint64_t>(kDefaultShardBytes);

  void add_to(CLI::App& app) {
    model.add_to(app);
    app.add_option("--output-dir", output_dir, "Folder to write, new or empty")->required();
    app.add_option("--max-shard-size", max_shard_size,
                   "Largest file of weights: bytes, or with a unit, 500MB")
        ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true))
        ->check(at_least(1))
        ->default_str("5GB");
    common.add_to(app);
  }
};

int run(const Options& options) {
  const LoadOptions load = options.model.load_options();
  if (!load.quant_config) {
    throw CLI::ValidationError("--quant-type", "expected nf4 or fp4, found none");
  }
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  console.say("Quantizing " + options.model.model);
  const QuantizedFolder written =
      quantize_pretrained(options.model.folder(), options.output_dir,
                          {.quant_config = *load.quant_config,
                           .dtype = load.dtype,
                           .max_shard_bytes = static_cast<std::int64_t>(options.max_shard_size)});
  console.result({{"output_dir", options.output_dir},
                  {"bytes", written.bytes},
                  {"quantized_weights", written.quantized_weights},
                  {"dense_weights", written.dense_weights},
                  {"peak_memory_bytes", peak_memory_bytes()}});
  return kDone;
}

}  // namespace

Command quantize_command() {
  return {"quantize", "Writes a model folder in 4 bits, as transformers and bitsandbytes do",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
