// lorapp download: a model of the hub into the local Hugging Face cache.
#include "command.hpp"
#include "console.hpp"
#include "hub.hpp"
#include "interrupt.hpp"
#include "options.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>
#include <lorapp/io/hub_download.hpp>

#include <CLI/CLI.hpp>

#include <memory>
#include <string>
#include <vector>

#include <unistd.h>

namespace lorapp::program {

namespace {

struct Options {
  CommonOptions common{};
  std::string model{};
  std::string revision{};
  std::vector<std::string> include{};

  void add_to(CLI::App& app) {
    app.add_option("model,--model", model, "Id of a model on the hub: owner/name[@revision]")
        ->required();
    app.add_option("--revision", revision, "Branch, tag or commit")->default_str("main");
    add_list(app, "--include", include,
             "Files to take, a shell pattern; may be given several times. Without it: "
             "configuration, tokenizer and safetensors");
    app.footer("HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are honoured.");
    common.add_to(app);
  }

  /// The model with its revision, from wherever it was given.
  HubName name() const {
    auto name = parse_hub_name(model);
    if (!name) {
      throw CLI::ValidationError("--model",
                                 "expected owner/name[@revision], found \"" + model + "\"");
    }
    if (!name->revision.empty() && !revision.empty()) {
      throw CLI::ValidationError("--revision", "the model names one already: " + model);
    }
    if (name->revision.empty()) name->revision = revision.empty() ? "main" : revision;
    return *name;
  }
};

int run(const Options& options) {
  const HubName name = options.name();
  const Console console(options.common.json, options.common.quiet);
  HubDownloadOptions download;
  download.patterns = options.include;
  download.stop = &stop_flag();
  HubSnapshot snapshot;
  stop_on_signals();
  try {
    DownloadProgress progress(console.progress(), isatty(STDERR_FILENO) == 1);
    download.on_progress = [&](const HubProgress& state) { progress.show(state); };
    snapshot = download_snapshot(name.repo_id, name.revision, download);
  } catch (const Error&) {
    if (signal_exit_status() == 0) throw;
    console.say("Stopped; the same command goes on where it ended");
    return signal_exit_status();
  }
  console.result({{"repo_id", name.repo_id},
                  {"revision", name.revision},
                  {"commit", snapshot.commit},
                  {"path", snapshot.folder.string()},
                  {"files", snapshot.files},
                  {"bytes", snapshot.bytes}});
  return kDone;
}

}  // namespace

Command download_command() {
  return {"download", "Fetches a model from the Hugging Face hub into the local cache",
          [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
