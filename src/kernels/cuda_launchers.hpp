// The CUDA kernels as a table of pointers, so that the code above them is compiled, and tested on
// the emulation, in a build without CUDA.
#pragma once

#include "kernels/cuda_gpu.hpp"
#include "kernels/cuda_launch.hpp"
#include "kernels/cuda_products.hpp"

namespace lorapp::kernels::cuda {

/// One entry a launcher, of its name.
struct Launchers {
  decltype(&cuda::quantize_4bit) quantize_4bit;
  decltype(&cuda::mean) mean;
  decltype(&cuda::quantize_nested) quantize_nested;
  decltype(&cuda::dequantize_4bit) dequantize_4bit;
  decltype(&cuda::small_products) small_products;
  decltype(&cuda::low_rank_rows) low_rank_rows;
  decltype(&cuda::rms_norm) rms_norm;
  decltype(&cuda::rms_norm_backward) rms_norm_backward;
  decltype(&cuda::rotate) rotate;
  decltype(&cuda::swiglu) swiglu;
  decltype(&cuda::swiglu_backward) swiglu_backward;
  decltype(&cuda::cross_entropy) cross_entropy;
  decltype(&cuda::dropout) dropout;
  decltype(&cuda::sum_of_squares) sum_of_squares;
  decltype(&cuda::adamw) adamw;
  decltype(&cuda::adamw_8bit) adamw_8bit;

  decltype(&cuda::make_product_algorithms) make_product_algorithms;
  decltype(&cuda::fill_matrix) fill_matrix;
  decltype(&cuda::linear_forward) linear_forward;
  decltype(&cuda::linear_backward) linear_backward;

  decltype(&cuda::find_gpus) find_gpus;
  decltype(&cuda::error_text) error_text;
  const char* architectures;  // that were compiled, "80,90"
};

/// The kernels of this build; null if it has none.
const Launchers* launchers() noexcept;

}  // namespace lorapp::kernels::cuda
