// HTTP requests through libcurl, one at a time and without following redirects: who may see the
// token at the next address is for the caller to decide.
#pragma once

#include <lorapp/export.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

/// An answer, or why there is none.
struct HttpResponse {
  int status = 0;                              ///< 0: no answer came
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string location;                        ///< of a redirect: the whole address it leads to
  std::string body;                            ///< unless a sink took it
  std::string failure;     ///< not empty: the answer did not come, or not to its end
  bool stopped = false;    ///< the failure is that the caller stopped it
  bool transient = false;  ///< the failure may pass, as that of a connection may

  bool good() const { return failure.empty() && status >= 200 && status < 300; }
  bool is_redirect() const;
  /// The header's value; empty where it is absent.
  std::string header(const std::string& name) const;
  /// A header that holds a size; nothing where it is absent or no number from 0 to 2^63 - 1.
  std::optional<std::int64_t> size_header(const std::string& name) const;
};

struct HttpRequest {
  std::string url;
  bool head = false;
  std::vector<std::string> headers{};  ///< "Name: value"
  /// Takes the pieces of a body whose status is 200 or 206; false ends the transfer. A failure then
  /// says `sink_failure`.
  std::function<bool(const HttpResponse& head, std::string_view piece)> sink{};
  std::string sink_failure = "the answer was refused";
  std::size_t max_body = std::size_t{1} << 20;  ///< a longer body without a sink is a failure
};

/// One handle of libcurl, whose connections are kept for the next request. Its proxies are those of
/// the environment (http_proxy, https_proxy, no_proxy); SSL_CERT_FILE names other certificates.
class HttpClient {
 public:
  /// `timeout`: seconds to connect, and seconds of silence after which a transfer has failed. A
  /// transfer ends soon after `*stop` turns true (null: never).
  HttpClient(double timeout, const std::atomic<bool>* stop);
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  HttpResponse send(const HttpRequest& request);

 private:
  struct Handle;
  std::unique_ptr<Handle> handle_;
  double timeout_;
  const std::atomic<bool>* stop_;
};

/// "https://host:443": what decides whether two addresses are one server. Empty where `url` is not
/// one of http or https.
LORAPP_API std::string url_origin(const std::string& url);

/// `text` with every byte but letters, digits, "-._~" and those of `kept` as %XX.
LORAPP_API std::string url_quoted(std::string_view text, std::string_view kept = {});

}  // namespace lorapp::detail
