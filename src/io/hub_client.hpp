// The hub's protocol: what a repository holds, what a file is, and its bytes.
#pragma once

#include "io/http.hpp"

#include <lorapp/io/hub_download.hpp>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

/// A repository at one revision.
struct HubListing {
  std::string commit;              ///< 40 hexadecimal digits
  std::vector<std::string> files;  ///< sorted, each once, each safe below a folder
};

/// One file of a commit.
struct HubFile {
  std::string name;
  std::string etag{};  ///< safe as the name of a file
  std::int64_t size = 0;
};

class HubClient {
 public:
  /// `options` must outlive the client; the endpoint and the token are checked here.
  HubClient(const HubDownloadOptions& options, std::string repo_id, std::string revision);

  HubListing list();
  HubFile inspect(const std::string& commit, const std::string& file);

  /// One attempt at the bytes of a file, from `offset` on, with redirects followed.
  HttpResponse fetch(const std::string& commit,
                     const std::string& file,
                     std::int64_t offset,
                     HttpRequest request);

  /// Waits before the next attempt, or throws: the failure will not pass, or `attempt` was the
  /// last. `attempt` counts from 0 and is advanced.
  void wait_to_retry(int& attempt, const HttpResponse& response, const std::string& what);

  /// Throws if the caller wants to stop.
  void check_stopped() const;

 private:
  enum class Redirects { within_endpoint, anywhere };

  std::string file_url(const std::string& commit, const std::string& file) const;
  HttpResponse follow(HttpRequest request, Redirects redirects);
  HttpResponse ask(const HttpRequest& request, Redirects redirects, const std::string& what);
  [[noreturn]] void refuse(const HttpResponse& response, const std::string& what) const;

  const HubDownloadOptions& options_;
  std::string repo_id_;
  std::string revision_;
  std::string endpoint_;
  std::string origin_;
  std::string token_;
  HttpClient http_;
};

}  // namespace lorapp::detail
