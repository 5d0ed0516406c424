// Which instruction set the CPU kernels use, and whether CUDA kernels were compiled in.
// Chosen at first use: LORAPP_FORCE_ISA if set, else the fastest that the CPU and the OS support
// (avx512bf16 on AMD's CPUs alone: Intel's multiply pairs of bf16 at half the rate of f32).
#pragma once

#include <lorapp/export.hpp>

#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// Every instruction set that was compiled in and can run here, best first; "scalar" is the last.
/// Names: amx, avx512bf16, avx512vnni, avx512, avx2, scalar.
LORAPP_API std::vector<std::string> available_isas();

/// The one in use. Throws Error if LORAPP_FORCE_ISA names one that cannot run.
LORAPP_API std::string active_isa();

/// Uses another instruction set until the end of the scope, in the whole process; for tests and
/// benchmarks. Throws Error on an unknown name or one that cannot run here, listing what can.
class LORAPP_API ScopedIsa {
 public:
  explicit ScopedIsa(std::string_view name);
  ~ScopedIsa();
  ScopedIsa(const ScopedIsa&) = delete;
  ScopedIsa& operator=(const ScopedIsa&) = delete;

 private:
  const void* previous_;
};

/// Threads that the CPU kernels use: LibTorch's own (at::get_num_threads), or 1 where lorapp was
/// built without LibTorch's OpenMP.
LORAPP_API int kernel_threads();

/// True if lorapp was built with CUDA kernels.
LORAPP_API bool cuda_available();

}  // namespace lorapp
