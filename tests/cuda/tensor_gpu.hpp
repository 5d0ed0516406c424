// The GPU that tests of tensors use: a real one, or the emulation as a device of LibTorch whose
// memory is the heap. There tensors do not mix with the CPU's either, and what LibTorch itself
// computes it computes by its CPU kernels on copies. The program that is linked says which.
#pragma once

#include "quant/gpu.hpp"

#include <c10/core/Device.h>

#include <cstdint>

namespace lorapp::test {

/// The device of tests, with kernels, until the end of the scope.
class TensorGpu {
 public:
  TensorGpu();
  /// With other kernels, which outlive it.
  explicit TensorGpu(const kernels::cuda::Launchers& launchers);
  explicit TensorGpu(const kernels::cuda::Launchers&&) = delete;
  c10::Device device() const;

 private:
  detail::ScopedGpuBackend backend_;
};

/// Copies from the device to the host so far, each of which waits for a GPU; those within what
/// LibTorch itself computes do not count. Of a real GPU 0: there graph_test.cpp captures what must
/// not copy.
std::int64_t host_copies();

/// Bytes that tensors on the device hold.
std::int64_t live_bytes();

}  // namespace lorapp::test
