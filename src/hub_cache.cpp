// Look-ups in the cache of the Hugging Face hub, by the rules of huggingface_hub.
#include "hub_cache.hpp"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string>
#include <vector>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

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
  std::error_code ignored;
  for (auto snapshot = fs::directory_iterator(snapshots, error);
       !error && snapshot != fs::directory_iterator(); snapshot.increment(error)) {
    if (fs::exists(snapshot->path() / file, ignored)) complete.push_back(snapshot->path());
  }
  if (complete.empty()) return {};
  return *std::ranges::min_element(complete);
}

}  // namespace lorapp
