// Operands of a GPU's products with 4-bit weights, as kernels read them. Private to src/quant.
#pragma once

#include "quant/gpu.hpp"
#include "quant/gpu_ops.hpp"
#include "quant/gpu_weight.hpp"
#include "quant/products.hpp"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace lorapp::detail {

namespace cuda = kernels::cuda;

inline constexpr const char* kGpuLinear = "linear_4bit";  // names the operation in errors

inline bool aligned(const at::Tensor& x) {
  return reinterpret_cast<std::uintptr_t>(x.const_data_ptr()) % 16 == 0;
}

/// As [rows, last dimension] of bfloat16, with no gaps, where kernels load 16 bytes at a time.
inline at::Tensor halves(const at::Tensor& x) {
  const std::int64_t size = x.size(-1);
  const at::Tensor rows = x.reshape({x.numel() / size, size}).to(at::kBFloat16).contiguous();
  return aligned(rows) ? rows : rows.clone();
}

inline const std::uint16_t* read_bf16(const at::Tensor& x) {
  return static_cast<const std::uint16_t*>(x.const_data_ptr());
}
inline std::uint16_t* write_bf16(const at::Tensor& x) {
  return static_cast<std::uint16_t*>(x.mutable_data_ptr());
}
inline const float* read_f32(const at::Tensor& x) { return x.const_data_ptr<float>(); }

inline at::Tensor new_halves(const at::Tensor& like, at::IntArrayRef sizes) {
  return at::empty(sizes, like.options().dtype(at::kBFloat16));
}

/// Layers as kernels read them, and the tensors that keep them there.
struct Operand {
  std::vector<cuda::LinearWeight> parts;
  std::vector<at::Tensor> kept;
  at::Tensor matrix;

  cuda::LinearStack stack() const {
    return {parts.data(), static_cast<int>(parts.size()),
            matrix.defined() ? write_bf16(matrix) : nullptr};
  }
};

inline Operand operand_of(const std::vector<GpuLayer>& layers) {
  Operand operand;
  for (const GpuLayer& layer : layers) {
    cuda::LinearWeight part{};
    part.w = gpu_codes(layer.w);
    part.w.rows = layer.w.size(0);
    part.w.columns = layer.w.size(1);
    if (layer.low_rank != nullptr) {
      const at::Tensor a = layer.low_rank->a.contiguous(), b = layer.low_rank->b.contiguous();
      part.a = read_f32(a);
      part.b = read_f32(b);
      part.rank = a.size(0);
      part.scale = static_cast<float>(layer.low_rank->scale);
      operand.kept.insert(operand.kept.end(), {a, b});
    }
    operand.parts.push_back(part);
  }
  return operand;
}

/// Makes the matrix of products of many tokens, unless `made` is one.
inline void fill(const GpuScope& scope,
                 Operand& operand,
                 const at::Tensor& like,
                 const at::Tensor& made) {
  operand.matrix = made.defined() ? made : new_halves(like, {operand.stack().matrix_size()});
  if (made.defined()) return;
  const cuda::LinearStack stack = operand.stack();
  scope.check(scope.kernels().fill_matrix(stack, scope.stream()), "fill_matrix", stack.rows(),
              " rows of ", stack.columns(), ", ranks ", stack.padding());
}

inline at::Tensor product_space(const at::Tensor& like) {
  return at::empty({static_cast<std::int64_t>(cuda::kProductSpaceBytes)},
                   like.options().dtype(at::kByte));
}

inline bool masks(const GpuLayer& layer) {
  return layer.low_rank != nullptr && static_cast<bool>(layer.low_rank->mask);
}

/// What the A of each layer reads where it is not x, and pointers to it; no pointers where all read
/// x.
struct Inputs {
  std::vector<at::Tensor> tensors;
  std::vector<const std::uint16_t*> pointers;

  const std::uint16_t* const* data() const { return pointers.empty() ? nullptr : pointers.data(); }
};

inline Inputs inputs_of(const std::vector<GpuLayer>& layers, const at::Tensor& x) {
  Inputs inputs;
  if (std::none_of(layers.begin(), layers.end(), masks)) return inputs;
  for (const GpuLayer& layer : layers) {
    inputs.tensors.push_back(masks(layer) ? halves(low_rank_input(*layer.low_rank, x))
                                          : at::Tensor());
    inputs.pointers.push_back(masks(layer) ? read_bf16(inputs.tensors.back()) : nullptr);
  }
  return inputs;
}

}  // namespace lorapp::detail
