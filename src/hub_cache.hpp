// The cache of the Hugging Face hub on this machine, and the environment that says where it is:
// <cache>/<kind>--<org>--<name>/snapshots/<commit>/<file>, refs/<revision>, blobs/<etag>. Read
// only.
#pragma once

#include <lorapp/export.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp::detail {

/// The value of a variable of the environment; empty where it is not set.
LORAPP_API std::string environment(const char* name);

/// Whether a variable says yes as huggingface_hub reads it: 1, ON, YES or TRUE in any case.
LORAPP_API bool environment_flag(const char* name);

/// The folder of the hub's token: $HF_HOME, else huggingface in $XDG_CACHE_HOME or ~/.cache.
/// In this and in hub_cache() a leading ~ and $NAME or ${NAME} are expanded.
LORAPP_API std::filesystem::path hub_home();

/// $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE (its old name), else hub_home()/hub. A variable that
/// is set but empty counts as not set.
LORAPP_API std::filesystem::path hub_cache();

/// $HF_TOKEN, else $HUGGING_FACE_HUB_TOKEN, else the file $HF_TOKEN_PATH or hub_home()/token, with
/// white space at its ends removed; empty where there is none or HF_HUB_DISABLE_IMPLICIT_TOKEN says
/// to use none.
LORAPP_API std::string hub_token();

/// Whether `id` is "name" or "owner/name" by the hub's rules: each of letters, digits, '-', '_' and
/// '.', at most 96 of them, without '-' or '.' at an end; no "--" or "..", not ".git" behind.
LORAPP_API bool is_hub_id(std::string_view id);

/// Whether `path` stays below the folder it is put in: parts between slashes that are not empty,
/// "." or "..", without control characters, of 255 bytes at most.
LORAPP_API bool is_safe_relative_path(std::string_view path);

/// Whether `revision` may name a branch, a tag or a commit, and a file below refs/.
LORAPP_API bool is_hub_revision(std::string_view revision);

/// 40 digits of lower-case hexadecimal: a full commit hash.
LORAPP_API bool is_commit_hash(std::string_view text);

/// The folder of one repository in the cache; `kind` is "models" or "datasets", `id` "org/name".
LORAPP_API std::filesystem::path hub_repository(std::string_view kind, std::string_view id);

/// A snapshot, or why there is none.
struct HubLookup {
  std::optional<std::filesystem::path> snapshot{};
  std::string problem{};
};

/// The snapshot in a repository's folder that `revision` names and that holds `file`. A full commit
/// hash is itself, anything else what refs/<revision> says. Without a revision it is that of main;
/// where main was never fetched, the only snapshot that holds the file.
LORAPP_API HubLookup find_hub_snapshot(const std::filesystem::path& repository,
                                       std::string_view file,
                                       std::string_view revision = {});

}  // namespace lorapp::detail
