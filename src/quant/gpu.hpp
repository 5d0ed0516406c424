// What the operations ask of a GPU: whether there are kernels for a tensor's device, the stream
// that LibTorch works on there, and launches that do not fail silently. Private to src/.
#pragma once

#include "kernels/cuda_choose.hpp"
#include "kernels/cuda_launchers.hpp"

#include <lorapp/error.hpp>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/DeviceGuard.h>

#include <cstdint>
#include <memory>

namespace lorapp::detail {

/// The kernels for devices of one type.
struct GpuBackend {
  c10::DeviceType type = c10::DeviceType::CUDA;
  const kernels::cuda::Launchers* launchers = nullptr;  // null: none were compiled
};

/// Uses other kernels than this build's for CUDA, of another type of device, until the end of the
/// scope, in the whole process; for tests. Devices are looked at anew.
class ScopedGpuBackend {
 public:
  explicit ScopedGpuBackend(GpuBackend backend);
  ~ScopedGpuBackend();
  ScopedGpuBackend(const ScopedGpuBackend&) = delete;
  ScopedGpuBackend& operator=(const ScopedGpuBackend&) = delete;

 private:
  const void* previous_;
};

/// True where operations on tensors of this device launch kernels.
bool on_gpu(const c10::Device& device);

/// Throws Error(op), with what would help, unless a tensor on `device` can be computed with: on the
/// CPU, or on a GPU that the kernels of this build run on.
void check_device(const c10::Device& device, const char* op);

/// A GPU while kernels are launched on it: LibTorch's current device for the scope. Kernels go to
/// its current stream, so they follow what LibTorch has put there; nothing waits.
class GpuScope {
 public:
  /// Throws Error(op) as check_device does.
  GpuScope(const c10::Device& device, const char* op);

  const kernels::cuda::Launchers& kernels() const noexcept { return *kernels_; }
  void* stream() const noexcept { return stream_; }
  const kernels::cuda::Gpu& gpu() const noexcept { return gpu_; }

  /// cuBLASLt's algorithms for this device, with the memory of `space`.
  kernels::cuda::DenseProducts products(const at::Tensor& space) const;

  /// Throws Error(op) if a launch returned an error: its name, its arguments and CUDA's words.
  template <class... Args>
  void check(int error, const char* kernel, const Args&... arguments) const {
    if (error != 0) fail(error, kernel, concat(arguments...));
  }

 private:
  [[noreturn]] void fail(int error, const char* kernel, const std::string& arguments) const;

  c10::DeviceGuard guard_;
  const char* op_;
  const kernels::cuda::Launchers* kernels_;
  void* stream_;
  kernels::cuda::Gpu gpu_;
  std::shared_ptr<kernels::cuda::ProductAlgorithms> algorithms_;
};

}  // namespace lorapp::detail
