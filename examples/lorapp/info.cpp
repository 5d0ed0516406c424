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

#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace lorapp::program {

namespace {

// Which product a weight of Mistral-7B gets on this GPU, by the rows that it is multiplied with.
Json products_on(std::size_t index) {
  Json products = Json::object();
  for (const auto& [rows, columns] :
       {std::pair{1024, 4096}, {4096, 4096}, {4096, 14336}, {14336, 4096}}) {
    const std::int64_t few = most_packed_rows(
        torch::Device(torch::kCUDA, static_cast<c10::DeviceIndex>(index)), rows, columns);
    products[std::to_string(rows) + "x" + std::to_string(columns)] =
        "packed codes up to " + std::to_string(few) + " rows, then dequantized";
  }
  return products;
}

Json gpus() {
  Json list = Json::array();
  const std::vector<CudaDevice> devices = cuda_devices();
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const CudaDevice& gpu = devices[i];
    Json entry = {
        {"device", "cuda:" + std::to_string(i)},
        {"name", gpu.name},
        {"compute_capability", std::to_string(gpu.major) + "." + std::to_string(gpu.minor)},
        {"processors", gpu.processors},
        {"memory_bytes", gpu.memory_bytes}};
    if (gpu.problem.empty()) {
      entry["products"] = products_on(i);
    } else {
      entry["problem"] = gpu.problem;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

int run(const CommonOptions& options) {
  options.apply();
  Json devices = Json::array({"cpu"});
  const Json found = gpus();
  for (const Json& gpu : found) {
    if (!gpu.contains("problem")) devices.push_back(gpu.at("device"));
  }
  const Console console(options.json, options.quiet);
  console.result({{"version", kVersion},
                  {"libtorch", TORCH_VERSION},
                  {"isa", active_isa()},
                  {"isas", available_isas()},
                  {"compute_dtype", hf_dtype_name(resolve_compute_dtype({}, torch::kCPU))},
                  {"threads", kernel_threads()},
                  {"cores", std::thread::hardware_concurrency()},
                  {"cuda", cuda_available()},
                  {"cuda_architectures", cuda_architectures()},
                  {"cuda_problem", cuda_problem()},
                  {"gpus", found},
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
