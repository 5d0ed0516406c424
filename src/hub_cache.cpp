// Look-ups in the cache of the Hugging Face hub, by the rules of huggingface_hub.
#include "hub_cache.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "model_folder";

fs::path variable(const char* name) {
  const char* value = std::getenv(name);  // NOLINT(concurrency-mt-unsafe): read only
  return value == nullptr ? fs::path{} : fs::path(value);
}

fs::path hub_cache() {
  for (const char* name : {"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"}) {
    if (fs::path cache = variable(name); !cache.empty()) return cache;
  }
  if (const fs::path home = variable("HF_HOME"); !home.empty()) return home / "hub";
  fs::path user_cache = variable("XDG_CACHE_HOME");
  if (user_cache.empty()) user_cache = variable("HOME") / ".cache";
  return user_cache / "huggingface" / "hub";
}

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

fs::path detail::hub_repository(std::string_view kind, std::string_view id) {
  std::string folder(kind);
  folder += "--";
  for (const char c : id) folder += c == '/' ? std::string("--") : std::string(1, c);
  return hub_cache() / folder;
}

std::optional<fs::path> detail::find_hub_snapshot(const fs::path& repository,
                                                  std::string_view file) {
  const fs::path snapshots = repository / "snapshots";
  std::error_code error;
  std::string revision;
  std::ifstream(repository / "refs" / "main") >> revision;
  if (!revision.empty() && fs::exists(snapshots / revision / file, error)) {
    return snapshots / revision;
  }
  std::vector<fs::path> complete;
  for (const auto& snapshot : fs::directory_iterator(snapshots, error)) {
    if (fs::exists(snapshot.path() / file, error)) complete.push_back(snapshot.path());
  }
  if (complete.empty()) return {};
  return *std::ranges::min_element(complete);
}

fs::path resolve_model_folder(const std::string& name_or_path, std::string_view needed_file) {
  std::error_code error;
  const fs::file_status status = fs::status(name_or_path, error);
  if (fs::is_directory(status)) return name_or_path;
  LORAPP_CHECK(!fs::exists(status),
               kOp,
               name_or_path,
               ": is a file, expected a model folder or the id of a model on the hub");
  LORAPP_CHECK(is_hub_id(name_or_path),
               kOp,
               name_or_path.empty() ? "\"\"" : name_or_path,
               ": no such folder");
  const fs::path repository = detail::hub_repository("models", name_or_path);
  const auto snapshot = detail::find_hub_snapshot(repository, needed_file);
  LORAPP_CHECK(snapshot.has_value(),
               kOp,
               name_or_path,
               ": no such folder, and the local Hugging Face cache has no snapshot of that name "
               "with ",
               needed_file,
               " (looked in ",
               (repository / "snapshots").string(),
               "); nothing is downloaded, expected a model folder or the id of a cached model");
  return *snapshot;
}

}  // namespace lorapp
