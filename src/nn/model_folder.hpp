// What stands beside the weights in a model folder, and checks of the folder that is written.
#pragma once

#include <lorapp/quant/config.hpp>

#include <torch/types.h>

#include <filesystem>
#include <optional>
#include <string_view>

namespace lorapp::detail {

/// Whether nothing stands at `dir`, or an empty folder. Error(op) where it is no folder, or cannot
/// be read.
bool is_new_or_empty(const std::filesystem::path& dir, std::string_view op);

/// Error(op) unless is_new_or_empty.
void check_new_or_empty(const std::filesystem::path& dir, std::string_view op);

/// Copies generation_config.json and the tokenizer's files, those that are there, byte for byte.
void copy_side_files(const std::filesystem::path& from,
                     const std::filesystem::path& to,
                     std::string_view op);

/// What weights are, that were made of those of another folder.
struct WrittenWeights {
  std::optional<QuantConfig> quant_config;  ///< of the 4-bit ones; nothing: all are dense
  torch::Dtype dtype = torch::kFloat32;
  bool tied = false;  ///< whether the head is the embedding
};

/// Writes the config.json of the folder `to`: that of `from` with all its keys, but for those that
/// `weights` change. quantization_config is BitsAndBytesConfig's, as transformers writes it.
void write_folder_config(const std::filesystem::path& from,
                         const std::filesystem::path& to,
                         std::string_view op,
                         const WrittenWeights& weights);

}  // namespace lorapp::detail
