// merge_pretrained: a model folder and an adapter become the folder of the tuned model.
// Streamed: no model is made; what is in memory is one shard of the output, one tensor in and out,
// and the adapter. Every weight that changes is measured while it is written.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/checkpoint_writer.hpp>
#include <lorapp/quant/config.hpp>

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp {

/// What an adapter's update is added to, and what is stored of the sum.
enum class MergeOnto {
  original,     ///< the weights as the files have them
  dequantized,  ///< the values of their 4-bit form, which an adapter of a 4-bit base was trained on
  requantized   ///< those too; the sum becomes 4-bit again
};

/// "original", "dequantized" or "requantized".
LORAPP_API std::string_view merge_onto_name(MergeOnto onto);
/// The inverse; throws Error on any other name.
LORAPP_API MergeOnto parse_merge_onto(std::string_view name);

struct MergeOptions {
  /// Nothing: `original`, or `dequantized` for a folder that is 4-bit already.
  std::optional<MergeOnto> onto = std::nullopt;
  /// How the base was quantized while the adapter was trained; nothing: it was dense. A folder that
  /// is 4-bit already says so itself. With `original` it is what the report compares with.
  std::optional<QuantConfig> quant_config = std::nullopt;
  /// What every weight is converted to first, as in LoadOptions, and what the sums are rounded to.
  std::optional<torch::Dtype> dtype = std::nullopt;
  /// Replaces a model folder (one with a config.json) that stands at the output's place.
  bool overwrite = false;
  std::int64_t max_shard_bytes = kDefaultShardBytes;
};

/// One weight that the adapter changes, or that it saw in 4 bits. Norms are the roots of sums of
/// squares, taken in float32 values and summed in double.
struct MergedWeight {
  std::string name;
  std::vector<std::int64_t> shape;
  bool changed = false;      ///< the adapter has an update for it
  bool quantized = false;    ///< stored in 4 bits
  double seen_norm = 0;      ///< ‖W‖ of what the adapter saw
  double update_norm = 0;    ///< ‖Δ‖
  double target_norm = 0;    ///< ‖W + Δ‖
  double error_norm = 0;     ///< ‖stored − (W + Δ)‖
  double max_abs_error = 0;  ///< max |stored − (W + Δ)|

  /// ‖Δ‖ / ‖W‖; nothing where W is zero.
  std::optional<double> relative_update() const { return ratio(update_norm, seen_norm); }
  /// ‖stored − (W + Δ)‖ / ‖W + Δ‖; nothing where W + Δ is zero.
  std::optional<double> relative_error() const { return ratio(error_norm, target_norm); }

 private:
  static std::optional<double> ratio(double part, double whole) {
    return whole > 0 ? std::optional<double>(part / whole) : std::nullopt;
  }
};

/// What merge_pretrained wrote.
struct MergeReport {
  MergeOnto onto = MergeOnto::original;
  std::vector<MergedWeight> weights;   ///< in the order of the layers
  std::int64_t bytes = 0;              ///< of tensor data
  std::int64_t changed_weights = 0;    ///< tensors that the adapter has an update for
  std::int64_t quantized_weights = 0;  ///< matrices stored in 4 bits
  std::int64_t dense_weights = 0;      ///< tensors stored dense
  bool untied_head = false;            ///< head and embedding were one, and became different

  /// The weight whose relative error is the largest; null where none is listed.
  LORAPP_API const MergedWeight* worst() const;
};

/// Adds the adapter in `adapter_dir` to the model in `dir` and writes the folder `output_dir`, new
/// or empty unless options.overwrite; it appears whole or not at all.
///
/// All that an adapter may hold is merged: LoRA on Linears and embeddings by its own rank and
/// scale, biases of B, whole modules, rows of tokens, trained biases. Sums are taken in float32 and
/// rounded once to the weight's dtype; where a sum becomes 4-bit, from there. A matrix without an
/// update stays what it was (dequantized: its dequantized values). A tied head that the adapter
/// takes apart from the embedding gets a tensor of its own.
///
/// config.json keeps its keys: quantization_config is there if and only if weights are 4-bit.
/// generation_config.json and the tokenizer's files are copied byte for byte. Error for `original`
/// where the folder has 4-bit weights only, for the others without any quantization, for a
/// lora_bias on a layer without a bias, and where a sum is not finite.
LORAPP_API MergeReport merge_pretrained(const std::filesystem::path& dir,
                                        const std::filesystem::path& adapter_dir,
                                        const std::filesystem::path& output_dir,
                                        const MergeOptions& options = {});

}  // namespace lorapp
