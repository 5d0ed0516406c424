#include "io/http.hpp"

#include <lorapp/error.hpp>
#include <lorapp/version.hpp>

#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdlib>
#include <ctime>
#include <exception>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "http";
constexpr std::size_t kMaxHeaderBytes = std::size_t{256} << 10;
/// A request without a sink may take this many times the timeout in all.
constexpr double kWholeRequest = 12;

/// libcurl wants one call before all others, in one thread. It is the only state of the whole
/// program that lorapp touches; it is never torn down, because other users of libcurl may go on.
void init_curl() {
  static const CURLcode code = curl_global_init(CURL_GLOBAL_DEFAULT);
  LORAPP_CHECK(code == CURLE_OK, kOp, "libcurl cannot be used: ", curl_easy_strerror(code));
}

/// Keeps SIGPIPE from this thread while it lives: a TLS library may write to a closed connection,
/// and the signal would end the program.
class NoBrokenPipes {
 public:
  NoBrokenPipes() {
    sigemptyset(&pipe_);
    sigaddset(&pipe_, SIGPIPE);
    sigset_t pending;
    sigpending(&pending);
    was_pending_ = sigismember(&pending, SIGPIPE) == 1;
    blocked_ = pthread_sigmask(SIG_BLOCK, &pipe_, &before_) == 0;
  }
  ~NoBrokenPipes() {
    if (!blocked_) return;
    const timespec at_once{};
    while (!was_pending_ && sigtimedwait(&pipe_, nullptr, &at_once) == SIGPIPE) {
    }
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  NoBrokenPipes(const NoBrokenPipes&) = delete;
  NoBrokenPipes& operator=(const NoBrokenPipes&) = delete;

 private:
  sigset_t pipe_{};
  sigset_t before_{};
  bool was_pending_ = false;
  bool blocked_ = false;
};

struct Transfer {
  const HttpRequest* request;
  const std::atomic<bool>* stop;
  CURL* curl;
  HttpResponse response{};
  std::size_t header_bytes = 0;
  bool sink_refused = false;
  bool too_long = false;
  std::exception_ptr error{};  // of the sink: no exception may pass through libcurl
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

std::size_t on_header(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const std::string_view line(data, size);
  transfer.header_bytes += size;
  if (transfer.header_bytes > kMaxHeaderBytes) {
    transfer.too_long = true;
    return 0;
  }
  if (line.starts_with("HTTP/")) {  // that of a proxy or of "100 Continue" may come before ours
    transfer.response.headers.clear();
    return size;
  }
  const std::size_t colon = line.find(':');
  if (colon == line.npos) return size;
  std::string name(trimmed(line.substr(0, colon)));
  std::ranges::transform(name, name.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  transfer.response.headers[name] = trimmed(line.substr(colon + 1));
  return size;
}

std::size_t on_body(char* data, std::size_t, std::size_t size, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  const HttpRequest& request = *transfer.request;
  HttpResponse& response = transfer.response;
  if (response.status == 0) {
    long status = 0;
    curl_easy_getinfo(transfer.curl, CURLINFO_RESPONSE_CODE, &status);
    response.status = static_cast<int>(status);
  }
  if (request.sink && (response.status == 200 || response.status == 206)) {
    try {
      transfer.sink_refused = !request.sink(response, {data, size});
    } catch (...) {
      transfer.error = std::current_exception();
    }
    return transfer.sink_refused || transfer.error ? 0 : size;
  }
  if (size > request.max_body - response.body.size()) {
    transfer.too_long = true;
    return 0;
  }
  response.body.append(data, size);
  return size;
}

int on_progress(void* user, curl_off_t, curl_off_t, curl_off_t, curl_off_t) {
  const auto& transfer = *static_cast<Transfer*>(user);
  return transfer.stop != nullptr && transfer.stop->load() ? 1 : 0;
}

bool is_transient(CURLcode code) {
  constexpr std::array kTransient = {CURLE_COULDNT_RESOLVE_PROXY,
                                     CURLE_COULDNT_RESOLVE_HOST,
                                     CURLE_COULDNT_CONNECT,
                                     CURLE_PARTIAL_FILE,
                                     CURLE_OPERATION_TIMEDOUT,
                                     CURLE_SSL_CONNECT_ERROR,
                                     CURLE_GOT_NOTHING,
                                     CURLE_SEND_ERROR,
                                     CURLE_RECV_ERROR,
                                     CURLE_HTTP2,
                                     CURLE_HTTP2_STREAM};
  return std::ranges::find(kTransient, code) != kTransient.end();
}

struct HeaderList {
  curl_slist* first = nullptr;
  ~HeaderList() { curl_slist_free_all(first); }
  HeaderList() = default;
  HeaderList(const HeaderList&) = delete;
  HeaderList& operator=(const HeaderList&) = delete;

  void add(const std::string& line) {
    curl_slist* longer = curl_slist_append(first, line.c_str());
    LORAPP_CHECK(longer != nullptr, kOp, "out of memory");
    first = longer;
  }
};

}  // namespace

struct HttpClient::Handle {
  CURL* curl = nullptr;
  Handle() {
    init_curl();
    curl = curl_easy_init();
    LORAPP_CHECK(curl != nullptr, kOp, "libcurl gave no handle");
  }
  ~Handle() { curl_easy_cleanup(curl); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
};

bool HttpResponse::is_redirect() const {
  return failure.empty() && !location.empty() &&
         (status == 301 || status == 302 || status == 303 || status == 307 || status == 308);
}

std::string HttpResponse::header(const std::string& name) const {
  const auto found = headers.find(name);
  return found == headers.end() ? std::string{} : found->second;
}

std::optional<std::int64_t> HttpResponse::size_header(const std::string& name) const {
  const std::string text = header(name);
  std::int64_t size = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, size);
  if (error != std::errc{} || stop != end || size < 0) return {};
  return size;
}

HttpClient::HttpClient(double timeout, const std::atomic<bool>* stop)
    : handle_(std::make_unique<Handle>()), timeout_(timeout), stop_(stop) {}

HttpClient::~HttpClient() = default;

HttpResponse HttpClient::send(const HttpRequest& request) {
  CURL* curl = handle_->curl;
  curl_easy_reset(curl);  // connections stay
  Transfer transfer{.request = &request, .stop = stop_, .curl = curl};
  std::array<char, CURL_ERROR_SIZE> message{};
  HeaderList headers;
  for (const std::string& line : request.headers) headers.add(line);

  curl_easy_setopt(curl, CURLOPT_URL, request.url.c_str());
#if LIBCURL_VERSION_NUM >= 0x075500
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
  curl_easy_setopt(curl, CURLOPT_PROTOCOLS, static_cast<long>(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
  curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(curl, CURLOPT_NOBODY, request.head ? 1L : 0L);
  curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers.first);
  curl_easy_setopt(curl, CURLOPT_USERAGENT, (std::string("lorapp/") + kVersion).c_str());
  curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, std::lround(timeout_ * 1000));
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
  curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, std::max(1L, std::lround(timeout_)));
  if (!request.sink) {
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, std::lround(timeout_ * 1000 * kWholeRequest));
  }
  if (const char* file = std::getenv("SSL_CERT_FILE"); file != nullptr && *file != '\0') {
    curl_easy_setopt(curl, CURLOPT_CAINFO, file);
  }
  curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, message.data());
  curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, on_header);
  curl_easy_setopt(curl, CURLOPT_HEADERDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_body);
  curl_easy_setopt(curl, CURLOPT_WRITEDATA, &transfer);
  curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
  curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
  curl_easy_setopt(curl, CURLOPT_XFERINFODATA, &transfer);

  CURLcode code = CURLE_OK;
  {
    const NoBrokenPipes guard;
    code = curl_easy_perform(curl);
  }
  if (transfer.error) {
    curl_easy_reset(curl);  // it holds pointers into this frame
    std::rethrow_exception(transfer.error);
  }
  HttpResponse response = std::move(transfer.response);
  long status = 0;
  curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
  response.status = static_cast<int>(status);
  const char* location = nullptr;
  curl_easy_getinfo(curl, CURLINFO_REDIRECT_URL, &location);
  if (location != nullptr) response.location = location;
  if (code != CURLE_OK) {
    response.transient = is_transient(code);
    response.stopped = code == CURLE_ABORTED_BY_CALLBACK;
    response.failure = message[0] != '\0' ? message.data() : curl_easy_strerror(code);
    if (transfer.sink_refused) response.failure = request.sink_failure;
    if (transfer.too_long) response.failure = "the answer is longer than any real one";
    if (response.stopped) response.failure = "stopped";
  }
  curl_easy_reset(curl);
  return response;
}

std::string url_origin(const std::string& url) {
  struct Url {
    CURLU* handle = curl_url();
    ~Url() { curl_url_cleanup(handle); }
  } const parsed;
  const auto part = [&](CURLUPart which) {
    char* text = nullptr;
    std::string copy;
    if (curl_url_get(parsed.handle, which, &text, CURLU_DEFAULT_PORT) == CURLUE_OK) copy = text;
    curl_free(text);
    return copy;
  };
  if (parsed.handle == nullptr ||
      curl_url_set(parsed.handle, CURLUPART_URL, url.c_str(), 0) != CURLUE_OK) {
    return {};
  }
  const std::string scheme = part(CURLUPART_SCHEME);
  std::string host = part(CURLUPART_HOST);
  std::ranges::transform(host, host.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  if ((scheme != "http" && scheme != "https") || host.empty()) return {};
  return scheme + "://" + host + ":" + part(CURLUPART_PORT);
}

std::string url_quoted(std::string_view text, std::string_view kept) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
  std::string quoted;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (kPlain.find(c) != kPlain.npos || kept.find(c) != kept.npos) {
      quoted += c;
    } else {
      quoted += {'%', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return quoted;
}

}  // namespace lorapp::detail
