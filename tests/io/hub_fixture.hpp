// One model on a server of the test's own, and an empty cache.
#pragma once

#include "support/hub_server.hpp"

#include <lorapp/io/hub_download.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace lorapp::test {

/// The model is "org/tiny".
struct Hub {
  HubServer server;
  TemporaryFolder cache;
  Json files = small_model();

  Hub() { publish(); }
  void publish(const Json& more = Json::object()) const {
    Json repo = repository(files);
    repo.update(more);
    server.set({{"org/tiny", repo}});
  }
  HubDownloadOptions options() const {
    HubDownloadOptions options;
    options.cache_dir = cache.path();
    options.endpoint = server.endpoint();
    options.token = "";
    options.retries = 3;
    options.retry_wait = 0.01;
    options.timeout = 5;
    return options;
  }
  HubSnapshot download(const std::string& revision = "main") const {
    return download_snapshot("org/tiny", revision, options());
  }
  std::filesystem::path repository_folder() const { return cache / "models--org--tiny"; }
  std::vector<std::string> blobs() const {
    std::vector<std::string> names;
    std::error_code error;
    for (const auto& entry :
         std::filesystem::directory_iterator(repository_folder() / "blobs", error)) {
      names.push_back(entry.path().filename().string());
    }
    std::ranges::sort(names);
    return names;
  }
};

}  // namespace lorapp::test
