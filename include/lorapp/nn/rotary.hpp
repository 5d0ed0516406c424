// Rotary position embedding, in the rotate-half layout: dimension i turns with dimension i + d/2.
// Angles are float32; cosines and sines are rounded to the dtype they multiply, as transformers.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/rope_scaling.hpp>

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace lorapp {

/// cos and sin of the angle of each token and pair of dimensions, [T, 1, d/2]: the 1 is the heads.
struct Rotation {
  torch::Tensor cos;
  torch::Tensor sin;
};

/// What the rotation of one model is made of.
struct RopeFrequencies {
  torch::Tensor inverse;          ///< [d/2] float32: radians per position
  double attention_factor = 1.0;  ///< multiplies cosines and sines
};

// Every step below is the operation, in the dtype and order, that transformers 5 computes it with:
// at far positions the last bit of a frequency is an angle.
namespace detail {

/// 2i/d for the d/2 pairs of dimensions.
inline torch::Tensor rope_exponents(std::int64_t head_size) {
  return at::arange(0, head_size, 2, torch::kInt64).to(torch::kFloat32) / head_size;
}

/// theta^(-2i/d): Su et al. 2021, "RoFormer".
inline torch::Tensor plain_frequencies(std::int64_t head_size, double theta) {
  return at::reciprocal(at::pow(theta, rope_exponents(head_size)));
}

/// Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between blended.
inline torch::Tensor llama3_frequencies(const torch::Tensor& plain,
                                        const RopeScaling& scaling,
                                        double original) {
  const double low = scaling.low_freq_factor;
  const double high = scaling.high_freq_factor;
  const torch::Tensor wavelength = at::reciprocal(plain) * (2 * std::numbers::pi);
  const torch::Tensor is_long = wavelength > original / low;
  const torch::Tensor is_short = wavelength < original / high;
  const torch::Tensor stretched = at::where(is_long, plain / scaling.factor, plain);
  const torch::Tensor smooth = (at::reciprocal(wavelength) * original - low) / (high - low);
  const torch::Tensor blended =
      at::rsub(smooth, 1) * stretched / scaling.factor + smooth * stretched;
  return at::where(at::logical_or(is_long, is_short), stretched, blended);
}

/// The index of the pair that turns `turns` times in `length` positions (not an integer).
inline double yarn_pair(double turns, std::int64_t head_size, double theta, double length) {
  return static_cast<double>(head_size) * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(theta));
}

/// Peng et al. 2023, "YaRN": a ramp from frequencies left alone to frequencies divided by `factor`.
inline torch::Tensor yarn_frequencies(std::int64_t head_size,
                                      double theta,
                                      const RopeScaling& scaling,
                                      double original) {
  double first = yarn_pair(scaling.beta_fast, head_size, theta, original);
  double last = yarn_pair(scaling.beta_slow, head_size, theta, original);
  if (scaling.truncate) {
    first = std::floor(first);
    last = std::ceil(last);
  }
  first = std::max(first, 0.0);
  last = std::min(last, static_cast<double>(head_size - 1));
  if (first == last) last += 0.001;
  const torch::Tensor powers = at::pow(theta, rope_exponents(head_size));
  const torch::Tensor ramp =
      ((at::arange(head_size / 2, torch::kFloat32) - first) / (last - first)).clamp(0, 1);
  const torch::Tensor kept = at::rsub(ramp, 1);
  return at::reciprocal(powers * scaling.factor) * at::rsub(kept, 1) +
         at::reciprocal(powers) * kept;
}

inline double yarn_attention_factor(const RopeScaling& scaling) {
  if (scaling.attention_factor) return *scaling.attention_factor;
  const auto magnitude = [&](double mscale) {
    return scaling.factor <= 1 ? 1.0 : 0.1 * mscale * std::log(scaling.factor) + 1.0;
  };
  const double mscale = scaling.mscale.value_or(0);
  const double mscale_all_dim = scaling.mscale_all_dim.value_or(0);
  if (mscale == 0 || mscale_all_dim == 0) return magnitude(1);
  return magnitude(mscale) / magnitude(mscale_all_dim);
}

/// "NTK-aware" scaling for a text of `length` > max_positions tokens: theta grows with the length.
/// transformers has the length in a tensor there, which makes the new theta a float32.
inline torch::Tensor dynamic_frequencies(std::int64_t head_size,
                                         double theta,
                                         double factor,
                                         std::int64_t max_positions,
                                         std::int64_t length) {
  const auto size = static_cast<double>(head_size);
  const torch::Tensor stretch =
      at::scalar_tensor(length, torch::kInt64) * factor / max_positions - (factor - 1);
  const torch::Tensor longer = at::pow(stretch, size / (size - 2)) * theta;
  return at::reciprocal(at::pow(longer, rope_exponents(head_size)));
}

/// The same within max_positions, where transformers computes in double; theta, but for rounding.
inline torch::Tensor dynamic_frequencies_within(std::int64_t head_size,
                                                double theta,
                                                double factor,
                                                std::int64_t max_positions) {
  const auto size = static_cast<double>(head_size);
  const auto length = static_cast<double>(max_positions);
  const double stretch = factor * length / length - (factor - 1);
  return plain_frequencies(head_size, theta * std::pow(stretch, size / (size - 2)));
}

}  // namespace detail

/// The frequencies of a model before it has seen a text longer than `max_positions`
/// (max_position_embeddings). `head_size` d is even, and more than 2 for RopeType::dynamic.
inline RopeFrequencies rope_frequencies(std::int64_t head_size,
                                        double theta,
                                        const RopeScaling& scaling,
                                        std::int64_t max_positions) {
  const auto original =
      static_cast<double>(scaling.original_max_position_embeddings.value_or(max_positions));
  switch (scaling.type) {
    case RopeType::none:
      break;
    case RopeType::linear:
      return {detail::plain_frequencies(head_size, theta) / scaling.factor};
    case RopeType::dynamic:
      return {detail::dynamic_frequencies_within(head_size, theta, scaling.factor, max_positions)};
    case RopeType::llama3:
      return {detail::llama3_frequencies(detail::plain_frequencies(head_size, theta), scaling,
                                         original)};
    case RopeType::yarn:
      return {detail::yarn_frequencies(head_size, theta, scaling, original),
              detail::yarn_attention_factor(scaling)};
  }
  return {detail::plain_frequencies(head_size, theta)};
}

/// The angles of one model: position · frequency.
///
/// With RopeType::dynamic the frequencies follow the longest text of a forward pass, and as in
/// transformers they have a memory: once a text was longer than max_positions, its frequencies stay
/// until one comes that is longer still, or one shorter than max_positions, which restores the
/// first ones. Keys in a KV cache keep the rotation they were written with.
class LORAPP_API RotaryEmbedding {
 public:
  RotaryEmbedding(std::int64_t head_size,
                  double theta,
                  const RopeScaling& scaling = {},
                  std::int64_t max_positions = 0)
      : head_size_(head_size),
        theta_(theta),
        scaling_(scaling),
        max_positions_(max_positions),
        longest_(max_positions),
        frequencies_(rope_frequencies(head_size, theta, scaling, max_positions)) {}

  /// The rotation of tokens at `positions` [T] int64, in `dtype`.
  Rotation at(const torch::Tensor& positions, torch::Dtype dtype) {
    if (scaling_.type == RopeType::dynamic) {
      follow_length(positions.max().item<std::int64_t>() + 1);
    }
    torch::Tensor& inverse = frequencies_.inverse;
    if (inverse.device() != positions.device()) inverse = inverse.to(positions.device());
    const torch::Tensor angles =
        (positions.to(torch::kFloat32).unsqueeze(-1) * inverse).unsqueeze(1);
    torch::Tensor cos = angles.cos();
    torch::Tensor sin = angles.sin();
    if (frequencies_.attention_factor != 1.0) {
      cos.mul_(frequencies_.attention_factor);
      sin.mul_(frequencies_.attention_factor);
    }
    return {cos.to(dtype), sin.to(dtype)};
  }

  /// The frequencies of the last forward pass, or of the next one within max_positions.
  const RopeFrequencies& frequencies() const noexcept { return frequencies_; }

 private:
  void follow_length(std::int64_t length) {
    if (length > longest_) {
      frequencies_.inverse =
          detail::dynamic_frequencies(head_size_, theta_, scaling_.factor, max_positions_, length);
      longest_ = length;
    } else if (length < max_positions_ && longest_ > max_positions_) {
      frequencies_ = rope_frequencies(head_size_, theta_, scaling_, max_positions_);
      longest_ = max_positions_;
    }
  }

  std::int64_t head_size_;
  double theta_;
  RopeScaling scaling_;
  std::int64_t max_positions_;
  std::int64_t longest_;         // tokens of the text that frequencies_ are for
  RopeFrequencies frequencies_;  // no buffer, so that no to(dtype) rounds it
};

namespace detail {

/// The rule, of LibTorch's operations: any dtype, device and strides.
inline torch::Tensor composed_rotate(const torch::Tensor& x, const Rotation& rotation) {
  const std::int64_t half = x.size(-1) / 2;
  const torch::Tensor first = x.narrow(-1, 0, half);
  const torch::Tensor second = x.narrow(-1, half, half);
  return at::cat(
      {first * rotation.cos - second * rotation.sin, second * rotation.cos + first * rotation.sin},
      -1);
}

}  // namespace detail

/// Turns x [T, heads, d]. On the CPU, and a GPU with kernels, one kernel does, which can be
/// differentiated once.
LORAPP_API torch::Tensor rotate(const torch::Tensor& x, const Rotation& rotation);

/// The same into `out`, of the sizes and type of x, without a gradient: e.g. rows of a cache.
LORAPP_API void rotate_into(const torch::Tensor& out,
                            const torch::Tensor& x,
                            const Rotation& rotation);

}  // namespace lorapp
