// Adapters in the files of other programs: MLX's, both ways, and GGUF for llama.cpp.
// All of them know LoRA on Linears and embeddings only; what else an adapter holds is an Error.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <filesystem>
#include <memory>

namespace lorapp {

/// Writes the active adapter as mlx-lm does: adapters.safetensors and adapter_config.json in `dir`.
/// MLX has one rank and one scale for all layers: smaller ranks are filled up with zeros, other
/// scales multiplied into lora_b, so the product of the two is the same.
LORAPP_API void save_mlx_adapter(const PeftModel& model, const std::filesystem::path& dir);

/// Reads a LoRA adapter that mlx-lm wrote: lora_a [in, r], lora_b [r, out], a scale in place of
/// alpha/r. Its target_modules are the full paths of its layers. DoRA and whole weights
/// ("fine_tune_type": "full") are an Error.
LORAPP_API PeftModel load_mlx_adapter(std::shared_ptr<CausalLM> base,
                                      const std::filesystem::path& dir,
                                      bool is_trainable = false);

/// Writes the active adapter as one GGUF file (version 3, float32) that llama.cpp loads beside the
/// GGUF of the base. A file has one alpha and llama.cpp scales by alpha / rank: that of the first
/// layer is exact, rsLoRA included, and what other layers differ by is multiplied into lora_b.
/// Error for a base whose tensors llama.cpp names or orders in ways that are not known here.
LORAPP_API void export_gguf_adapter(const PeftModel& model, const std::filesystem::path& path);

}  // namespace lorapp
