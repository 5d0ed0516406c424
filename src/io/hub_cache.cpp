// The model folder behind a path or a hub id.
#include "hub_cache.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <algorithm>
#include <string>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "model_folder";

/// "org/name" or "name", of the letters that the hub allows.
bool is_hub_id(std::string_view name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '/';
  };
  return !name.empty() && std::ranges::all_of(name, allowed) &&
         std::ranges::count(name, '/') <= 1 && !name.starts_with('/') && !name.ends_with('/') &&
         !name.starts_with('.');
}

}  // namespace

fs::path resolve_model_folder(const std::string& name_or_path, std::string_view needed_file) {
  std::error_code error;
  const fs::file_status status = fs::status(name_or_path, error);
  if (fs::is_directory(status)) return name_or_path;
  LORAPP_CHECK(!fs::exists(status), kOp, name_or_path,
               ": is a file, expected a model folder or the id of a model on the hub");
  LORAPP_CHECK(is_hub_id(name_or_path), kOp, name_or_path.empty() ? "\"\"" : name_or_path,
               ": no such folder");
  const fs::path repository = detail::hub_repository("models", name_or_path);
  const auto snapshot = detail::find_hub_snapshot(repository, needed_file);
  LORAPP_CHECK(snapshot.has_value(), kOp, name_or_path,
               ": no such folder, and the local Hugging Face cache has no snapshot of that name "
               "with ",
               needed_file, " (looked in ", (repository / "snapshots").string(),
               "); nothing is downloaded, expected a model folder or the id of a cached model");
  return *snapshot;
}

}  // namespace lorapp
