// export_gguf: a model folder as one GGUF file, weights and tokenizer, for llama.cpp.
// Streamed tensor by tensor: no model is made.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/gguf.hpp>

#include <cstdint>
#include <filesystem>
#include <string>

namespace lorapp {

struct GgufOptions {
  /// Of matrices; vectors (norms, biases) are float32. A matrix whose rows are no whole number of
  /// q8_0's blocks is float16 instead.
  GgufType type = GgufType::f16;
  /// general.name; empty: the folder's.
  std::string name = {};
};

/// What export_gguf wrote.
struct GgufFile {
  std::int64_t bytes = 0;
  std::int64_t tensors = 0;
};

/// Writes the model folder `dir` (Llama, Mistral, Qwen2, Qwen3; 4-bit weights are dequantized) to
/// the file `path`, which appears whole or not at all.
///
/// Rows of q and k are in llama.cpp's order where its architecture is "llama". Rotary scaling is
/// written as keys (linear, yarn with its defaults) or as the tensor rope_freqs.weight (llama3).
/// llama.cpp has no sliding window for these architectures: a text longer than the model's window
/// is attended to as a whole there. One Error lists all that the format has no place for: another
/// family, dynamic rotary scaling, yarn with numbers of its own, a tokenizer that llama.cpp would
/// not repeat.
LORAPP_API GgufFile export_gguf(const std::filesystem::path& dir,
                                const std::filesystem::path& path,
                                const GgufOptions& options = {});

}  // namespace lorapp
