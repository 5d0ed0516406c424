// PackedCodes: codes and scales of a QuantizedTensor in the layout of kernels/packed_weight.hpp.
// Private to src/quant.
#pragma once

#include "kernels/packed_weight.hpp"
#include "quant/aligned_buffer.hpp"

#include <lorapp/quant/quantized_tensor.hpp>

namespace lorapp::detail {

/// Immutable. The tables that codes refer to stay in the Parts that every call is given.
class PackedCodes {
 public:
  using Parts = QuantizedTensor::Parts;

  /// True if a weight with these parts can be packed.
  static bool fits(const Parts& parts);

  /// `parts` fit and have their codes and absmax. Each page is touched first by the thread that
  /// products read it with.
  explicit PackedCodes(const Parts& parts);

  /// The inverse: in the order of files.
  at::Tensor codes(const Parts& parts) const;
  at::Tensor absmax(const Parts& parts) const;

  /// What kernels read; valid while this and the tensors of `parts` live.
  kernels::PackedWeight view(const Parts& parts) const;

  /// Of the weight, without the line behind its last (kernels::line_bytes).
  std::int64_t nbytes() const noexcept {
    return lines_.size() - kernels::kLineBytes + scales_.size();
  }

 private:
  AlignedBuffer lines_;
  AlignedBuffer scales_;  // f32, or u8 where they are nested
  std::int64_t span_;
};

}  // namespace lorapp::detail
