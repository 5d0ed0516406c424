// What the operations with row kernels have in common: which tensors go there, and the threads.
// Private: for the sources of nn and the rooms above it.
#pragma once

#include "quant/backend.hpp"
#include "quant/float_type.hpp"
#include "quant/gpu_kernels.hpp"
#include "quant/grain.hpp"
#include "quant/second_derivatives.hpp"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>

#include <cstddef>
#include <cstdint>

namespace lorapp::detail {

/// True for a plain tensor on the CPU or a GPU with kernels, of a type that they compute; strides
/// are not looked at.
inline bool has_row_kernel(const at::Tensor& x) {
  return (x.is_cpu() || on_gpu(x.device())) && x.layout() == at::kStrided &&
         has_float_type(x.scalar_type());
}

/// f(kernels, first, last) for ranges of `rows` rows of `size` elements: from several threads with
/// the CPU's table, or once for all of them with a GPU's kernels (GpuKernels). `op` names itself in
/// errors.
template <class F>
void for_row_ranges(
    const char* op, const at::Device& device, std::int64_t rows, std::int64_t size, F f) {
  if (on_gpu(device)) {
    const GpuScope scope(device, op);
    f(GpuKernels(scope), std::int64_t{0}, rows);
    return;
  }
  const kernels::KernelTable& table = kernel_table();
  at::parallel_for(0, rows, grain_for(size, kElementGrain),
                   [&](std::int64_t first, std::int64_t last) { f(table, first, last); });
}

/// The elements of x, `index` elements on.
inline const void* elements(const at::Tensor& x, std::int64_t index) {
  return static_cast<const std::byte*>(x.const_data_ptr()) +
         index * static_cast<std::int64_t>(x.element_size());
}
inline void* mutable_elements(const at::Tensor& x, std::int64_t index) {
  return static_cast<std::byte*>(x.mutable_data_ptr()) +
         index * static_cast<std::int64_t>(x.element_size());
}

/// Where a backward pass may write a gradient like `x`: over `dy`, if it is contiguous and nothing
/// else holds it, else anew. For kernels that read an element before they write it.
inline at::Tensor gradient_like(const at::Tensor& x, const at::Tensor& dy) {
  const bool is_free = dy.use_count() == 1 && dy.storage().use_count() == 1 && dy.is_contiguous() &&
                       dy.sizes() == x.sizes() && dy.scalar_type() == x.scalar_type();
  return is_free ? dy : at::empty_like(x, at::MemoryFormat::Contiguous);
}

}  // namespace lorapp::detail
