// lorapp info: versions, instruction sets, devices.
#include "command.hpp"
#include "console.hpp"
#include "options.hpp"

#include <lorapp/quant/backend.hpp>
#include <lorapp/quant/config.hpp>
#include <lorapp/version.hpp>

#include <lorapp/io/dtype.hpp>
#include <lorapp/io/hub_download.hpp>

#include <torch/headeronly/version.h>
#include <CLI/CLI.hpp>

#include <memory>
#include <thread>

namespace lorapp::program {

namespace {

int run(const CommonOptions& options) {
  options.apply();
  Json devices = Json::array({"cpu"});
  if (cuda_available()) devices.push_back("cuda");
  const Console console(options.json, options.quiet);
  console.result({{"version", kVersion},
                  {"libtorch", TORCH_VERSION},
                  {"isa", active_isa()},
                  {"isas", available_isas()},
                  {"compute_dtype", hf_dtype_name(resolve_compute_dtype({}, torch::kCPU))},
                  {"threads", kernel_threads()},
                  {"cores", std::thread::hardware_concurrency()},
                  {"cuda", cuda_available()},
                  {"hub", hub_download_available()},
                  {"devices", devices}});
  return kDone;
}

}  // namespace

Command info_command() {
  return {"info", "Version, LibTorch, the instruction set chosen, devices", [](CLI::App& app) {
            const auto options = std::make_shared<CommonOptions>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
