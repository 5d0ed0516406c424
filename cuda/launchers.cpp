// The table of this build's kernels, and the GPUs that CUDA finds.
#include "kernels/cuda_launchers.hpp"

#include <cuda_runtime_api.h>

namespace lorapp::kernels::cuda {

GpuSearch find_gpus() {
  GpuSearch search;
  // A driver's version is known without a GPU, and is 0 without a driver.
  cudaDriverGetVersion(&search.driver_version);
  cudaRuntimeGetVersion(&search.runtime_version);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    search.error = cudaGetErrorString(error);
    cudaGetLastError();  // else LibTorch would find it after a call of its own
    return search;
  }
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties;
    if (const cudaError_t failed = cudaGetDeviceProperties(&properties, i); failed != cudaSuccess) {
      search.error = cudaGetErrorString(failed);
      cudaGetLastError();
      return search;
    }
    search.gpus.push_back({properties.name, 10 * properties.major + properties.minor,
                           properties.multiProcessorCount,
                           static_cast<std::int64_t>(properties.totalGlobalMem)});
  }
  return search;
}

const Launchers* launchers() noexcept {
  static constexpr Launchers kLaunchers{
      .quantize_4bit = &cuda::quantize_4bit,
      .mean = &cuda::mean,
      .quantize_nested = &cuda::quantize_nested,
      .dequantize_4bit = &cuda::dequantize_4bit,
      .small_products = &cuda::small_products,
      .low_rank_rows = &cuda::low_rank_rows,
      .rms_norm = &cuda::rms_norm,
      .rms_norm_backward = &cuda::rms_norm_backward,
      .rotate = &cuda::rotate,
      .swiglu = &cuda::swiglu,
      .swiglu_backward = &cuda::swiglu_backward,
      .cross_entropy = &cuda::cross_entropy,
      .dropout = &cuda::dropout,
      .sum_of_squares = &cuda::sum_of_squares,
      .adamw = &cuda::adamw,
      .adamw_8bit = &cuda::adamw_8bit,
      .make_product_algorithms = &cuda::make_product_algorithms,
      .fill_matrix = &cuda::fill_matrix,
      .linear_forward = &cuda::linear_forward,
      .linear_backward = &cuda::linear_backward,
      .find_gpus = &cuda::find_gpus,
      .error_text = &cuda::error_text,
      .architectures = LORAPP_CUDA_ARCHS_TEXT,
  };
  return &kLaunchers;
}

}  // namespace lorapp::kernels::cuda
