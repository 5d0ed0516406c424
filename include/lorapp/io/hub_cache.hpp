// Names of the Hugging Face hub, looked up in the cache that its own tools keep on this machine.
// Nothing is ever downloaded.
#pragma once

#include <lorapp/export.hpp>

#include <filesystem>
#include <string>
#include <string_view>

namespace lorapp {

/// The model folder that `name_or_path` means: a folder as it is, else the snapshot of a hub id
/// ("mistralai/Mistral-7B-Instruct-v0.1") in the local cache that holds `needed_file`.
///
/// The cache is $HF_HUB_CACHE (or its old name $HUGGINGFACE_HUB_CACHE), else $HF_HOME/hub, else
/// huggingface/hub in $XDG_CACHE_HOME or ~/.cache. The snapshot is the one refs/main names, else
/// the first by name that is complete. Throws Error that says where it looked.
LORAPP_API std::filesystem::path resolve_model_folder(const std::string& name_or_path,
                                                      std::string_view needed_file = "config.json");

}  // namespace lorapp
