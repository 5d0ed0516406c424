// What stands beside the weights in a model folder, and checks of the folder that is written.
#pragma once

#include <filesystem>
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

}  // namespace lorapp::detail
