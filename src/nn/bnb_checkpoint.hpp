// 4-bit weights as bitsandbytes writes them into a checkpoint: P.weight and its companion tensors.
// The companions are P.weight.absmax, .quant_map, .nested_absmax, .nested_quant_map and a JSON text
// in P.weight.quant_state.bitsandbytes__nf4 (or __fp4).
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/quant/quantized_tensor.hpp>

#include <torch/types.h>

#include <optional>
#include <string>
#include <vector>

namespace lorapp::detail {

/// The companion tensors of the weight `name` that the checkpoint holds; empty where it is dense.
std::vector<std::string> bnb_companions(const Checkpoint& checkpoint, const std::string& name);

/// The shape of the weight before it was quantized, from its quant_state; nothing, with a problem
/// added, where that cannot be read.
std::optional<std::vector<std::int64_t>> bnb_shape(const Checkpoint& checkpoint,
                                                   const std::string& name,
                                                   Problems& problems);

/// Reads the weight, with its parts on `device`: copies, or with `mapped` on the CPU views of the
/// file.
QuantizedTensor read_bnb_weight(const Checkpoint& checkpoint,
                                const std::string& name,
                                torch::Device device,
                                bool mapped = false);

/// The weight `name` and its companions, with the shapes and the JSON text that bitsandbytes
/// writes.
NamedTensors bnb_tensors(const std::string& name, const QuantizedTensor& weight);

}  // namespace lorapp::detail
