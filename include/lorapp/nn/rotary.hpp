// Rotary position embedding, in the rotate-half layout: dimension i turns with dimension i + d/2.
// Angles are float32; cosines and sines are rounded to the dtype they multiply, as transformers.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>

namespace lorapp {

/// cos and sin of the angle of each token and pair of dimensions, [T, 1, d/2]: the 1 is the heads.
struct Rotation {
  torch::Tensor cos;
  torch::Tensor sin;
};

/// The angles of one model (Su et al. 2021, "RoFormer"): position · theta^(-2i/d).
class LORAPP_API RotaryEmbedding {
 public:
  /// `head_size` d is even.
  RotaryEmbedding(std::int64_t head_size, double theta)
      // Step by step as transformers computes it in float32, so that far positions agree.
      : inverse_frequencies_(at::reciprocal(at::pow(
            theta, at::arange(0, head_size, 2, torch::kInt64).to(torch::kFloat32) / head_size))) {}

  /// The rotation of tokens at `positions` [T] int64, in `dtype`.
  Rotation at(const torch::Tensor& positions, torch::Dtype dtype) {
    if (inverse_frequencies_.device() != positions.device()) {
      inverse_frequencies_ = inverse_frequencies_.to(positions.device());
    }
    const torch::Tensor angles =
        (positions.to(torch::kFloat32).unsqueeze(-1) * inverse_frequencies_).unsqueeze(1);
    return {angles.cos().to(dtype), angles.sin().to(dtype)};
  }

 private:
  torch::Tensor inverse_frequencies_;  // [d/2] float32; no buffer, so that no to(dtype) rounds it
};

/// Turns x [T, heads, d].
inline torch::Tensor rotate(const torch::Tensor& x, const Rotation& rotation) {
  const std::int64_t half = x.size(-1) / 2;
  const torch::Tensor first = x.narrow(-1, 0, half);
  const torch::Tensor second = x.narrow(-1, half, half);
  return at::cat(
      {first * rotation.cos - second * rotation.sin, second * rotation.cos + first * rotation.sin},
      -1);
}

}  // namespace lorapp
