// Moments in 8 bits for AdamW, and their form in bitsandbytes' optimizer.pt. Private.
#pragma once

#include "io/torch_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/train/adamw.hpp>

#include <torch/types.h>

#include <cstdint>
#include <string>
#include <utility>

namespace lorapp::detail {

/// What a step of one parameter works on; gradient, m and v have the parameter's shape.
struct Moments8bit {
  torch::Tensor values;    // float32
  torch::Tensor gradient;  // float32
  torch::Tensor m, v;      // codes
  torch::Tensor m_absmax, v_absmax;
};

bool has_8bit_moments(const AdamW::Options& options,
                      const std::string& name,
                      const torch::Tensor& parameter);

/// Codes of `zero` in the parameter's shape, and their absmax.
std::pair<torch::Tensor, torch::Tensor> zero_moment_8bit(const torch::Tensor& parameter,
                                                         std::uint8_t zero);

void step_8bit(const Moments8bit& of, const AdamWStep& constants);

/// What bitsandbytes calls a parameter's moments: tensors of float32 or codes.
struct BnbMoments {
  torch::Tensor m, v;
  torch::Tensor m_absmax, v_absmax;  // undefined for float32
};

/// Where bitsandbytes keeps the moments of a parameter's entry; null where this is none of its
/// entries.
const TorchValue* find_bnb_moments(const TorchValue& entry);

/// The moments as `like` has them, of which the first is not changed; what is wrong becomes a
/// problem.
BnbMoments read_bnb_moments(const TorchFile& file,
                            const TorchValue& moments,
                            const std::string& name,
                            const BnbMoments& like,
                            Problems& problems);

/// Key and value in an entry of optimizer.pt.
void write_bnb_moments(TorchWriter& out, const BnbMoments& moments);

}  // namespace lorapp::detail
