// The cache of the Hugging Face hub on this machine:
// <cache>/<kind>--<org>--<name>/snapshots/<hash>. Read only.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

namespace lorapp::detail {

/// The folder of one repository in the cache; `kind` is "models" or "datasets", `id` "org/name".
std::filesystem::path hub_repository(std::string_view kind, std::string_view id);

/// The snapshot in it that holds `file`: the one refs/main names, else the first that has it.
std::optional<std::filesystem::path> find_hub_snapshot(const std::filesystem::path& repository,
                                                       std::string_view file);

}  // namespace lorapp::detail
