// lorapp convert: an adapter in the files of another program.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "options.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/convert.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <CLI/CLI.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>

namespace lorapp::program {

namespace {

namespace fs = std::filesystem;

struct Options {
  CommonOptions common{};
  ModelOptions model{};
  std::string adapter{};
  std::string to{};
  std::string output{};

  void add_to(CLI::App& app) {
    model.device = "cpu";  // nothing is computed
    model.add_to(app);
    model.add_cache_to(app);
    app.add_option("--adapter", adapter, "Adapter folder, PEFT's or mlx-lm's")->required();
    app.add_option("--to", to, "gguf (llama.cpp), mlx (mlx-lm) or peft")
        ->required()
        ->check(CLI::IsMember({"gguf", "mlx", "peft"}));
    app.add_option("--output", output, "File (gguf) or folder (mlx, peft) to write; new")
        ->required();
    common.add_to(app);
  }
};

/// mlx-lm's weights have a name of their own.
bool is_mlx_adapter(const fs::path& folder) {
  std::error_code error;
  return fs::exists(folder / "adapters.safetensors", error);
}

std::shared_ptr<PeftModel> load(const Options& options, const Console& console) {
  console.say("Loading " + options.model.model);
  std::shared_ptr<CausalLM> base =
      CausalLM::from_pretrained(options.model.folder(), options.model.load_options());
  if (!is_mlx_adapter(options.adapter)) {
    return load_adapter(std::move(base), options.adapter, options.model.model, console);
  }
  console.say("Loading the MLX adapter " + options.adapter);
  return std::make_shared<PeftModel>(load_mlx_adapter(std::move(base), options.adapter));
}

int run(const Options& options) {
  std::error_code error;
  LORAPP_CHECK(!fs::exists(options.output, error), "convert", options.output,
               ": is there already; expected a name that is new");
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  const std::shared_ptr<PeftModel> model = load(options, console);
  if (options.to == "gguf") {
    export_gguf_adapter(*model, options.output);
  } else if (options.to == "mlx") {
    save_mlx_adapter(*model, options.output);
  } else {
    model->save_pretrained(options.output);
  }
  console.result({{"output", options.output},
                  {"format", options.to},
                  {"trainable_params", model->trainable_parameters().trainable}});
  return kDone;
}

}  // namespace

Command convert_command() {
  return {"convert", "Writes an adapter for llama.cpp or mlx-lm, or one of theirs for PEFT",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
