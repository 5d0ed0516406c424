// Operands of 4-bit layers for the tests of tensors on a GPU.
#pragma once

#include "quant/operands.hpp"

#include <lorapp/quant/ops.hpp>

#include <torch/types.h>

#include <cstdint>
#include <optional>

namespace lorapp::test {

/// How far products of operands in bfloat16 may be from those in float32, relatively.
inline constexpr double kHalfTolerance = 1e-2;

/// x on the CPU.
inline torch::Tensor host(const torch::Tensor& x) { return x.defined() ? x.to(torch::kCPU) : x; }

/// A copy on `device` that requires a gradient.
inline torch::Tensor leaf(const torch::Tensor& x, const torch::Device& device) {
  return x.to(device).detach().clone().requires_grad_();
}

/// What a layer is made of, on the CPU.
struct Layer {
  QuantizedTensor w;
  std::optional<torch::Tensor> bias;
  std::optional<LowRank> term;
};

inline Layer layer(
    std::int64_t out, std::int64_t in, bool with_bias, std::int64_t rank, bool nested) {
  Layer made{quantize_4bit(random({out, in}, 1, torch::kBFloat16), {.use_double_quant = nested}),
             std::nullopt, std::nullopt};
  if (with_bias) made.bias = random({out}, 2);
  if (rank > 0) made.term = LowRank{random({rank, in}, 3), random({out, rank}, 4), 0.25, {}, {}};
  return made;
}

}  // namespace lorapp::test
