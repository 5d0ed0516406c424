// Loading streams: a model that is quantized while it is read never lies in memory dense.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/memory.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/traverse.hpp>

#include "support/temporary_folder.hpp"

#include "raw_safetensors.hpp"

#include <ATen/Parallel.h>
#include <doctest/doctest.h>
#include <torch/types.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <string>

namespace fs = std::filesystem;
using namespace lorapp;

namespace {

constexpr const char* kFolderVariable = "LORAPP_TEST_LOADING_FOLDER";
constexpr std::uint64_t kMiB = std::uint64_t{1} << 20;

// 300 M parameters: 595 MB in bf16, 168 MB in NF4.
ModelConfig large_config() {
  ModelConfig config;
  config.vocab_size = 512;
  config.hidden_size = 1536;
  config.intermediate_size = 4096;
  config.num_hidden_layers = 12;
  config.num_attention_heads = 12;
  config.num_key_value_heads = 3;
  config.dtype = torch::kBFloat16;
  return config;
}

// A model folder whose weights are all zero: the data are a hole in the file, which no disk has to
// hold.
void write_zero_model(const lorapp::test::TemporaryFolder& folder, const ModelConfig& config) {
  config.save(folder / "config.json");
  std::string header = "{";
  std::uint64_t end = 0;
  for (const TensorSpec& tensor : expected_tensors(config)) {
    std::uint64_t bytes = 2;
    std::string shape;
    for (const std::int64_t size : tensor.shape) {
      bytes *= static_cast<std::uint64_t>(size);
      if (!shape.empty()) shape += ',';
      shape += std::to_string(size);
    }
    header += lorapp::detail::concat(header.size() > 1 ? "," : "", '"', tensor.name,
                                     R"(":{"dtype":"BF16","shape":[)", shape,
                                     R"(],"data_offsets":[)", end, ",", end + bytes, "]}");
    end += bytes;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const auto path = folder.write(kWeightsName, lorapp::test::raw_safetensors(header, ""));
  fs::resize_file(path, 8 + header.size() + end);
}

std::uint64_t address_space_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmSize:")) return std::strtoull(line.c_str() + 7, nullptr, 10) * 1024;
  }
  return 0;
}

// Quantized weights and the dense rest, from the shapes alone.
struct Sizes {
  std::uint64_t dense = 0;
  std::uint64_t quantized = 0;
  std::uint64_t largest = 0;
};

Sizes sizes_of(const ModelConfig& config) {
  Sizes sizes;
  for (const TensorSpec& tensor : expected_tensors(config)) {
    std::uint64_t count = 1;
    for (const std::int64_t size : tensor.shape) count *= static_cast<std::uint64_t>(size);
    sizes.dense += 2 * count;
    sizes.largest = std::max(sizes.largest, 2 * count);
    const bool linear = tensor.name.find("_proj.") != std::string::npos;
    sizes.quantized += linear ? count / 2 + count / 64 * 4 : 2 * count;
  }
  return sizes;
}

// In a process of its own, which has linked LibTorch and done nothing yet.
void load_under_a_limit(const fs::path& folder) {
  at::set_num_threads(2);  // every thread more reserves address space for its stack and its heap
  const ModelConfig config = ModelConfig::from_pretrained(folder);
  const Sizes sizes = sizes_of(config);
  const std::uint64_t budget = sizes.quantized + sizes.largest + 150 * kMiB;
  REQUIRE(budget < sizes.dense);
  const std::uint64_t peak_before = peak_memory_bytes();
  const rlim_t limit = address_space_bytes() + budget;
  const rlimit limits{limit, limit};
  REQUIRE(::setrlimit(RLIMIT_AS, &limits) == 0);  // ulimit -v

  const auto model = CausalLM::from_pretrained(folder, {.quant_config = QuantConfig{}});
  CHECK(num_parameters(*model) == count_parameters(config));
  const std::uint64_t used = peak_memory_bytes() - peak_before;
  const std::uint64_t used_mib = used / kMiB;
  const std::uint64_t budget_mib = budget / kMiB;
  CAPTURE(used_mib);
  CAPTURE(budget_mib);
  CHECK(used <= budget);
}

}  // namespace

TEST_SUITE("loading_memory") {
  TEST_CASE("quantized loading stays within the quantized model, its largest tensor and 150 MiB") {
    if (const char* given = std::getenv(kFolderVariable)) {
      load_under_a_limit(given);
      return;
    }
    const lorapp::test::TemporaryFolder folder;
    write_zero_model(folder, large_config());
    // This binary again, to run this test case alone in a fresh process.
    const pid_t child = ::fork();
    if (child == 0) {
      ::setenv(kFolderVariable, folder.path().c_str(), 1);
      // The address sanitizer keeps 256 MiB of freed memory, which would count as the loader's.
      const char* options = std::getenv("ASAN_OPTIONS");
      const std::string kept =
          std::string(options != nullptr ? options : "") + ":quarantine_size_mb=1";
      ::setenv("ASAN_OPTIONS", kept.c_str(), 1);
      ::execl("/proc/self/exe", "lorapp_test_io", "--test-suite=loading_memory",
              static_cast<char*>(nullptr));
      ::_exit(127);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
}
