// Messages about GPUs that cannot be used.
#include "kernels/cuda_gpu.hpp"

#include <algorithm>
#include <cctype>

namespace lorapp::kernels::cuda {
namespace {

// 90 → "9.0"
std::string capability_text(int capability) {
  return std::to_string(capability / 10) + "." + std::to_string(capability % 10);
}

// 13000 → "13.0"
std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// Whether code for an entry of the list runs: machine code on the same generation from its
// minor version on, intermediate code (entries without "-real") on all that came later; what is
// marked a is for one GPU alone, f for its generation.
bool runs(std::string_view entry, int capability) {
  int arch = 0;
  std::size_t digits = 0;
  for (; digits < entry.size() && std::isdigit(static_cast<unsigned char>(entry[digits]));
       ++digits) {
    arch = 10 * arch + (entry[digits] - '0');
  }
  const std::string_view kind = entry.substr(digits);
  if (kind.starts_with("a")) return arch == capability;
  const bool same_generation = arch / 10 == capability / 10 && arch <= capability;
  if (kind.starts_with("f") || kind == "-real") return same_generation;
  return arch <= capability;
}

}  // namespace

std::optional<std::string> why_not(const GpuFacts& gpu, std::string_view architectures) {
  const std::string capability = capability_text(gpu.capability);
  if (gpu.capability < kLeastCapability) {
    return "it has compute capability " + capability + ", expected " +
           capability_text(kLeastCapability) +
           " or more (Ampere, 2020, or newer); use the CPU, or another GPU by "
           "CUDA_VISIBLE_DEVICES";
  }
  for (std::string_view rest = architectures; !rest.empty();) {
    const std::size_t end = std::min(rest.find(','), rest.size());
    if (runs(rest.substr(0, end), gpu.capability)) return std::nullopt;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return "it has compute capability " + capability + ", but lorapp was compiled for " +
         std::string(architectures) +
         "; build it with LORAPP_CUDA_ARCHS=" + std::to_string(gpu.capability);
}

std::optional<std::string> why_none(const GpuSearch& search) {
  if (!search.gpus.empty()) return std::nullopt;
  if (search.driver_version == 0) {
    return "this machine has no NVIDIA driver; install one that knows CUDA " +
           version_text(search.runtime_version) + ", or use the CPU";
  }
  // Within a major version older drivers run what newer toolkits compile.
  if (search.driver_version / 1000 < search.runtime_version / 1000) {
    return "the NVIDIA driver knows CUDA " + version_text(search.driver_version) +
           ", but lorapp was built with CUDA " + version_text(search.runtime_version) +
           "; install a newer driver, or build lorapp with a toolkit of " +
           std::to_string(search.driver_version / 1000) + ".x";
  }
  return "CUDA finds no GPU" + (search.error.empty() ? "" : " (" + search.error + ")") +
         "; look at nvidia-smi and CUDA_VISIBLE_DEVICES";
}

}  // namespace lorapp::kernels::cuda
