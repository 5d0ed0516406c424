// What llama.cpp calls the tensors of a model, and how it orders their rows.
#pragma once

#include <lorapp/nn/model_config.hpp>

#include <torch/types.h>

#include <string>

namespace lorapp::detail {

/// An architecture of llama.cpp. `rotates_pairs`: it turns neighbouring rows of q and k together
/// where Hugging Face turns the two halves of a head, so their rows change places.
struct GgufArchitecture {
  const char* name;
  bool rotates_pairs;
};

/// That of a model_type; null where none is known here.
const GgufArchitecture* gguf_architecture(const std::string& model_type);
/// "llama, mistral, qwen2 and qwen3".
inline constexpr const char* kGgufModelTypes = "llama, mistral, qwen2 and qwen3";

/// llama.cpp's name of a layer's tensor, without ".weight" or ".bias"; empty if it has none.
std::string gguf_name(const std::string& path);

/// The rows of a tensor of the layer at `path`, in llama.cpp's order.
torch::Tensor gguf_rows(const std::string& path,
                        const torch::Tensor& rows,
                        const GgufArchitecture& architecture,
                        const ModelConfig& config);

}  // namespace lorapp::detail
