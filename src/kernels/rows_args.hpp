// Arguments of the kernels over rows and flat buffers; what each computes.
// Elements are stored in `type` and computed in f32; where a rule says "rounded", to `type`.
#pragma once

#include "kernels/float16.hpp"

#include <lorapp/random_bits.hpp>
#include <lorapp/train/adamw_8bit_step.hpp>
#include <lorapp/train/adamw_step.hpp>

#include <cstdint>

namespace lorapp::kernels {

/// y = weight · rounded(x · scale), scale = 1 / √(mean(x²) + eps), row by row.
struct RmsNormArgs {
  const void* x;  // [rows, size]
  Float type;     // of x, weight and y
  std::int64_t rows;
  std::int64_t size;
  const void* weight;  // [size]
  float eps;
  void* y;       // [rows, size]
  float* scale;  // [rows], or null: 1/rms for the backward pass, NaN where it is 0
};

/// dx = scale · (g - x̂ · mean(g · x̂)), g = dy · weight, x̂ = x · scale; dweight += Σ dy · rounded(x̂)
struct RmsNormBackwardArgs {
  const void* x;
  Float type;  // of x, weight, dy and dx
  std::int64_t rows;
  std::int64_t size;
  const void* weight;
  const float* scale;  // [rows]
  const void* dy;
  void* dx;        // [rows, size], or null
  float* dweight;  // [size], or null
  /// For CUDA's kernels where there is a dweight: ColumnSumMap{rows, size}.scratch() floats.
  float* scratch = nullptr;
};

/// Turns dimension i with dimension i + size/2 by the token's angle, or back by it:
/// (a · cos - b · sin, b · cos + a · sin), every product and sum rounded. Without angles y = x: as
/// keys go into a cache turned, values go there as they are.
struct RotateArgs {
  const void* x;
  Float type;  // of x, cos, sin and y
  std::int64_t tokens;
  std::int64_t heads;
  std::int64_t size;          // of a head, even
  std::int64_t token_stride;  // of x, in elements
  std::int64_t head_stride;
  const void* cos;  // [tokens, size / 2], or null, and sin too
  const void* sin;
  bool back;
  void* y;  // [tokens, heads, size], or with the distances below
  /// Of y, in elements, e.g. of rows of a cache [heads, capacity, size]; both 0: there are no gaps.
  std::int64_t y_token_stride = 0;
  std::int64_t y_head_stride = 0;
};

/// The first element of y for a token and head.
LORAPP_HD std::int64_t rotated_begin(const RotateArgs& args,
                                     std::int64_t token,
                                     std::int64_t head) {
  if (args.y_token_stride == 0 && args.y_head_stride == 0) {
    return (token * args.heads + head) * args.size;
  }
  return token * args.y_token_stride + head * args.y_head_stride;
}

/// y = rounded(silu(gate)) · up, silu(x) = x / (1 + exp(-x)). An element is read before it is
/// written: y may be gate or up.
struct SwiGluArgs {
  const void* gate;  // [n]
  const void* up;
  Float type;
  std::int64_t n;
  void* y;
};

/// dgate = dy · up · σ · (1 + gate · (1 - σ)), dup = dy · rounded(gate · σ), σ = 1 / (1 +
/// exp(-gate)). An element is read before any is written: dgate and dup may be two of gate, up and
/// dy.
struct SwiGluBackwardArgs {
  const void* gate;  // [n]
  const void* up;
  const void* dy;
  Float type;
  std::int64_t n;
  void* dgate;
  void* dup;
};

/// No instruction set takes more elements at a time.
inline constexpr std::int64_t kRowStep = 32;

/// What the loss of each row, log(sum) + largest - picked, is made of; with `gradient`, logits
/// become (softmax - onehot(label)) · grad_scale.
struct CrossEntropyArgs {
  void* logits;  // [rows, size]
  Float type;
  std::int64_t rows;
  std::int64_t size;
  const std::int64_t* labels;  // [rows], each in [0, size)
  bool gradient;
  float grad_scale;
  float* largest;  // [rows]
  float* sum;      // [rows]: Σ exp(logit - largest)
  float* picked;   // [rows]: the label's logit
  float* scratch;  // [size, up to a multiple of kRowStep], for 16-bit logits with `gradient`
};

/// One step of AdamW, each operation rounded, in the order of AdamWStep::update.
struct AdamWArgs {
  float* p;
  const float* g;
  float* m;
  float* v;
  std::int64_t n;
  AdamWStep step;
};

/// One step of AdamW with moments in 8 bits (adamw_8bit_step.hpp). The buffers begin with a block's
/// first element.
struct AdamW8bitArgs {
  float* p;
  const float* g;
  std::uint8_t* m;  // [n]
  std::uint8_t* v;
  float* m_absmax;  // [ceil(n / kMomentBlock)]
  float* v_absmax;
  std::int64_t n;
  AdamWStep step;
};

/// y = x · keep_scale, or 0 where the element's random word is below `threshold`. The words of
/// elements 2i and 2i + 1 are the low and the high half of keyed_bits(key, i).
struct DropoutArgs {
  const void* x;  // [n]
  Float type;
  std::int64_t n;
  std::uint64_t key;
  std::uint64_t first_pair;  // of x[0]
  std::uint32_t threshold;
  float keep_scale;
  void* y;
};

}  // namespace lorapp::kernels
