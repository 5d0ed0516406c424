// Which instruction set the CPU kernels use, and whether CUDA kernels were compiled in.
// Chosen at first use: LORAPP_FORCE_ISA if set, else the fastest that the CPU and the OS support
// (avx512bf16 on AMD's CPUs alone: Intel's multiply pairs of bf16 at half the rate of f32).
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>
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

/// True if lorapp was built with CUDA kernels; there may be no GPU (cuda_devices).
LORAPP_API bool cuda_available();

/// The architectures that they were compiled for, as in "80,90" (entries of LORAPP_CUDA_ARCHS);
/// empty if none.
LORAPP_API std::string cuda_architectures();

/// A GPU of this machine.
struct CudaDevice {
  std::string name;
  int major = 0, minor = 0;  ///< of its compute capability
  int processors = 0;        ///< streaming multiprocessors
  std::int64_t memory_bytes = 0;
  std::string problem;  ///< why the kernels do not run on it, and what would help; empty if they do
};

/// All that CUDA finds, in its order: number i is torch::Device(torch::kCUDA, i).
LORAPP_API std::vector<CudaDevice> cuda_devices();

/// Why there is none, and what would help (a driver that is missing or older than CUDA asks for,
/// no kernels in this build), or why CUDA says nothing of one behind them; else empty.
LORAPP_API std::string cuda_problem();
/// Why the GPU of that number cannot be used; empty if it can.
LORAPP_API std::string cuda_problem(std::int64_t index);

/// The most rows of x that a GPU multiplies with the codes of a weight [rows, columns] in blocks of
/// `blocksize` as they are; for more it makes the weight dense (linear_4bit). Throws Error where
/// there are no kernels for `device`.
LORAPP_API std::int64_t most_packed_rows(torch::Device device,
                                         std::int64_t rows,
                                         std::int64_t columns,
                                         std::int64_t blocksize = 64);

}  // namespace lorapp
