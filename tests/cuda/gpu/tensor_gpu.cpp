// tensor_gpu.hpp for the first GPU.
#include "cuda/tensor_gpu.hpp"

#include <c10/cuda/CUDACachingAllocator.h>

namespace lorapp::test {
namespace {

using c10::cuda::CUDACachingAllocator::getDeviceStats;
constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);

}  // namespace

TensorGpu::TensorGpu() : TensorGpu(*kernels::cuda::launchers()) {}
TensorGpu::TensorGpu(const kernels::cuda::Launchers& launchers)
    : backend_({c10::DeviceType::CUDA, &launchers}) {}

c10::Device TensorGpu::device() const { return {c10::DeviceType::CUDA, 0}; }

std::int64_t host_copies() { return 0; }
std::int64_t live_bytes() { return getDeviceStats(0).requested_bytes[kAll].current; }

}  // namespace lorapp::test
