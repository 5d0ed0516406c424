// What is known of the GPUs of a machine, and what keeps kernels from running on one.
// Host code; no CUDA header is needed to include it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::kernels::cuda {

/// The oldest compute capability that the kernels run on, 10 · major + minor: bf16 on tensor cores.
inline constexpr int kLeastCapability = 80;

struct GpuFacts {
  std::string name;
  int capability = 0;  // 10 · major + minor: 90 for an H100 or H200
  int processors = 0;  // streaming multiprocessors
  std::int64_t memory_bytes = 0;
};

/// Versions as CUDA counts them: 13000 for 13.0; a driver's 0 where there is none.
struct GpuSearch {
  std::vector<GpuFacts> gpus;
  int driver_version = 0;   // the newest runtime that the driver knows
  int runtime_version = 0;  // that lorapp was built with
  std::string error;        // CUDA's words where the search failed
};

/// Looks for GPUs. They are numbered as CUDA does.
GpuSearch find_gpus();

/// Why kernels compiled for `architectures` ("80,90a,120-real") do not run on a GPU,
/// and what would help; nothing if they do.
std::optional<std::string> why_not(const GpuFacts& gpu, std::string_view architectures);

/// Why no GPU was found, and what would help; nothing if there is one.
std::optional<std::string> why_none(const GpuSearch& search);

}  // namespace lorapp::kernels::cuda
