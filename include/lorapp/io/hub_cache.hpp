// Names of the Hugging Face hub, looked up in the cache that its own tools keep on this machine.
// Nothing here opens a connection; download_snapshot() in hub_download.hpp does.
#pragma once

#include <lorapp/export.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp {

/// A model on the hub, at a branch, a tag or a commit.
struct HubName {
  std::string repo_id;
  std::string revision{};  ///< empty where none was given, which means main
};

/// "owner/name" or "owner/name@revision" in parts; nothing if `text` is neither by the hub's rules.
LORAPP_API std::optional<HubName> parse_hub_name(std::string_view text);

/// The model folder that `name_or_path` means: a folder as it is, else the snapshot of a hub id
/// ("mistralai/Mistral-7B-Instruct-v0.1", "owner/name@revision") in the local cache that holds
/// `needed_file`.
///
/// The cache is $HF_HUB_CACHE (or its old name $HUGGINGFACE_HUB_CACHE), else $HF_HOME/hub, else
/// huggingface/hub in $XDG_CACHE_HOME or ~/.cache. A revision that is a full commit hash names its
/// snapshot, another the one that refs/<revision> says. Without a revision it is that of main, and
/// where main was never fetched, the only snapshot that holds the file. Throws Error that says
/// where it looked and how to get the model.
LORAPP_API std::filesystem::path resolve_model_folder(const std::string& name_or_path,
                                                      std::string_view needed_file = "config.json");

/// Whether a folder holds every file of weights that its index names, or, without an index, a file
/// of weights at all. Snapshots of downloads that were cut short do not.
LORAPP_API bool has_all_weights(const std::filesystem::path& folder);

/// Whether HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) forbids connections: 1, ON, YES or TRUE.
LORAPP_API bool hub_is_offline();

}  // namespace lorapp
