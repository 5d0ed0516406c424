// Peak memory of loading, measured in a process of its own: this binary, told by an environment
// variable to load one folder and to write down what that took.
#include "nn/toy.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>

#include "support/temporary_folder.hpp"

#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

constexpr const char* kFolderVariable = "LORAPP_TEST_LOAD_FOLDER";
constexpr std::int64_t kMiB = std::int64_t{1} << 20;

// A field of /proc/self/status in bytes, e.g. VmHWM, the peak of resident memory.
std::int64_t status_bytes(const std::string& field) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  return 0;
}

LoadOptions options_of_child() {
  return {.quant_config = QuantConfig{.compute_dtype = torch::kFloat32}};
}

std::int64_t bytes_held(CausalLM& model) {
  std::int64_t bytes = 0;
  for (const torch::Tensor& parameter : model.parameters()) {
    bytes += static_cast<std::int64_t>(parameter.nbytes());
  }
  for_each_linear(model, [&](const std::string&, LinearImpl& linear) {
    if (linear.is_quantized()) bytes += linear.quantized().nbytes();
  });
  return bytes;
}

// About 400 MB of bfloat16 weights; equal shapes share their values.
ModelConfig large_config() {
  ModelConfig config;
  config.vocab_size = 4000;
  config.hidden_size = 1024;
  config.intermediate_size = 4096;
  config.num_hidden_layers = 13;
  config.num_attention_heads = 8;
  config.num_key_value_heads = 2;
  config.dtype = torch::kBFloat16;
  return config;
}

std::int64_t write_large_model(const std::filesystem::path& folder) {
  const ModelConfig config = large_config();
  std::map<std::vector<std::int64_t>, torch::Tensor> values;
  NamedTensors tensors;
  std::int64_t largest = 0;
  for (const TensorSpec& spec : expected_tensors(config)) {
    torch::Tensor& value = values[spec.shape];
    if (!value.defined()) {
      at::Generator generator = at::detail::createCPUGenerator(values.size());
      value = at::randn(spec.shape, generator, torch::dtype(torch::kFloat32)).to(torch::kBFloat16);
    }
    largest = std::max(largest, static_cast<std::int64_t>(value.nbytes()));
    tensors.emplace_back(spec.name, value);
  }
  write_safetensors(folder / kWeightsName, tensors);
  config.save(folder / "config.json");
  return largest;
}

}  // namespace

TEST_SUITE("nn") {
  // Does nothing but in the child process.
  TEST_CASE("load_memory_child: loads the folder it is told to") {
    const char* folder = std::getenv(kFolderVariable);
    if (folder == nullptr) return;
    // What any program that uses LibTorch has: its threads and its first product.
    (void)at::matmul(torch::ones({256, 256}), torch::ones({256, 256}));
    (void)quantize_4bit(torch::ones({256, 256}));
    const std::int64_t resident = status_bytes("VmHWM");
    const std::int64_t address_space = status_bytes("VmPeak");
    auto model =
        CausalLM::from_pretrained(std::filesystem::path(folder) / "model", options_of_child());
    std::ofstream(std::filesystem::path(folder) / "report")
        << status_bytes("VmHWM") - resident << ' ' << status_bytes("VmPeak") - address_space << ' '
        << bytes_held(*model);
  }

  TEST_CASE("from_pretrained: peak memory is the quantized model, its largest tensor and 150 MB") {
    if (status_bytes("VmHWM") == 0) {
      MESSAGE("skipped: this system has no /proc/self/status with VmHWM");
      return;
    }
    const TemporaryFolder folder;
    std::filesystem::create_directory(folder / "model");
    const std::int64_t largest = write_large_model(folder / "model");
    const std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
    const std::string command = std::string(kFolderVariable) + "='" + folder.path().string() +
                                "' '" + program + "' --test-case='load_memory_child*' > '" +
                                (folder / "log").string() + "' 2>&1";
    const int status = std::system(command.c_str());
    CAPTURE(read_file(folder / "log"));
    REQUIRE(status == 0);
    std::int64_t resident = 0, address_space = 0, held = 0;
    std::ifstream(folder / "report") >> resident >> address_space >> held;
    MESSAGE("resident ", resident / kMiB, " MiB, address space ", address_space / kMiB,
            " MiB, for a quantized model of ", held / kMiB, " MiB");
    CHECK(held > 100 * kMiB);
    CHECK(resident <= held + largest + 150 * kMiB);
    // So `ulimit -v` can be that tight: a file is never mapped whole.
    CHECK(address_space <= held + largest + 150 * kMiB);
    CHECK(held + largest + 150 * kMiB <
          static_cast<std::int64_t>(std::filesystem::file_size(folder / "model" / kWeightsName)));
  }
}
