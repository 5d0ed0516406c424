#include "io/hub_client.hpp"

#include "hub_cache.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <thread>
#include <utility>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "hub";
constexpr int kMaxRedirects = 10;
constexpr std::size_t kMaxListingBytes = std::size_t{32} << 20;
constexpr std::int64_t kMaxFileBytes = std::int64_t{1} << 50;
constexpr std::size_t kMaxMessageBytes = 300;
constexpr double kLongestWait = 8;    // seconds
constexpr double kLongestAsked = 60;  // the hub may ask for more patience than that
constexpr std::chrono::milliseconds kNap{50};

/// What a server says, fit for a message: one line, cut to a readable length.
std::string readable(std::string text) {
  if (text.size() > kMaxMessageBytes) {
    text.resize(kMaxMessageBytes);
    text += "…";
  }
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return text;
}

/// `W/"abc"` and `"abc"` are abc.
std::string bare_etag(std::string etag) {
  if (etag.starts_with("W/")) etag.erase(0, 2);
  if (etag.size() >= 2 && etag.front() == '"' && etag.back() == '"') {
    etag = etag.substr(1, etag.size() - 2);
  }
  return etag;
}

bool is_safe_etag(std::string_view etag) {
  return !etag.empty() && etag.size() <= 200 && etag.front() != '.' &&
         std::ranges::all_of(etag, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '-' || c == '_' || c == '.';
         });
}

bool may_pass(const HttpResponse& response) {
  constexpr std::array kTransient = {408, 429, 500, 502, 503, 504};
  if (!response.failure.empty()) return response.transient;
  return std::ranges::find(kTransient, response.status) != kTransient.end();
}

std::string outcome(const HttpResponse& response) {
  if (!response.failure.empty()) return readable(response.failure);
  const std::string message = readable(response.header("x-error-message"));
  return "status " + std::to_string(response.status) + (message.empty() ? "" : ": " + message);
}

}  // namespace

HubClient::HubClient(const HubDownloadOptions& options, std::string repo_id, std::string revision)
    : options_(options),
      repo_id_(std::move(repo_id)),
      revision_(std::move(revision)),
      endpoint_(options.endpoint.empty() ? environment("HF_ENDPOINT") : options.endpoint),
      token_(options.token ? *options.token : hub_token()),
      http_(options.timeout, options.stop) {
  if (endpoint_.empty()) endpoint_ = "https://huggingface.co";
  while (endpoint_.ends_with('/')) endpoint_.pop_back();
  origin_ = url_origin(endpoint_);
  LORAPP_CHECK(!origin_.empty(), kOp, "the endpoint ", in_quotes(endpoint_),
               " (HF_ENDPOINT) is no address; expected http://… or https://…");
  // Its value is in no message: it is a secret.
  LORAPP_CHECK(std::ranges::all_of(token_, [](char c) { return c > 0x20 && c < 0x7f; }), kOp,
               "the token (HF_TOKEN or the token file) holds a character that no token has");
}

void HubClient::check_stopped() const {
  LORAPP_CHECK(options_.stop == nullptr || !options_.stop->load(), kOp, repo_id_,
               ": the download was stopped; a further call goes on where it ended");
}

void HubClient::wait_to_retry(int& attempt, const HttpResponse& response, const std::string& what) {
  check_stopped();
  LORAPP_CHECK(may_pass(response), kOp, what, ": ", outcome(response));
  LORAPP_CHECK(attempt < options_.retries, kOp, what, ": ", outcome(response), " (after ",
               attempt + 1, attempt == 0 ? " attempt" : " attempts", ")");
  double seconds = std::min(options_.retry_wait * std::pow(2.0, attempt), kLongestWait);
  if (const auto asked = response.size_header("retry-after")) {
    seconds = std::max(seconds, std::min(static_cast<double>(*asked), kLongestAsked));
  }
  ++attempt;
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < end) {
    check_stopped();
    std::this_thread::sleep_for(kNap);
  }
}

HttpResponse HubClient::follow(HttpRequest request, Redirects redirects) {
  const std::vector<std::string> headers = request.headers;
  for (int hop = 0; hop <= kMaxRedirects; ++hop) {
    const std::string origin = url_origin(request.url);
    request.headers = headers;
    request.headers.emplace_back("Accept-Encoding: identity");  // a size is that of the file
    if (!token_.empty() && origin == origin_) {
      request.headers.push_back("Authorization: Bearer " + token_);
    }
    HttpResponse response = http_.send(request);
    if (!response.is_redirect()) return response;
    const std::string target = url_origin(response.location);
    if (redirects == Redirects::within_endpoint && target != origin_) return response;
    LORAPP_CHECK(!target.empty(), kOp, request.url, ": redirects to ", in_quotes(response.location),
                 ", expected an address of http or https");
    LORAPP_CHECK(!origin.starts_with("https:") || target.starts_with("https:"), kOp, request.url,
                 ": redirects to the unencrypted address ", in_quotes(response.location));
    request.url = response.location;
  }
  fail(kOp, concat(request.url, ": more than ", kMaxRedirects, " redirects"));
}

HttpResponse HubClient::ask(const HttpRequest& request,
                            Redirects redirects,
                            const std::string& what) {
  for (int attempt = 0;;) {
    HttpResponse response = follow(request, redirects);
    if (response.good() || response.is_redirect()) return response;
    if (response.failure.empty() && !may_pass(response)) refuse(response, what);
    wait_to_retry(attempt, response, what);
  }
}

void HubClient::refuse(const HttpResponse& response, const std::string& what) const {
  const std::string code = response.header("x-error-code");
  const std::string message = readable(response.header("x-error-message"));
  const std::string said = message.empty() ? "" : " The hub says: " + message;
  const std::string page = endpoint_ + "/" + repo_id_;
  const char* who = token_.empty() ? "no token was sent; set HF_TOKEN, or run \"hf auth login\""
                                   : "the token that was sent has no access";
  if (code == "GatedRepo") {
    fail(kOp, concat(repo_id_, ": the model is gated: accept its terms at ", page,
                     " with your account (", who, ").", said));
  }
  if (code == "RevisionNotFound") {
    fail(kOp, concat(repo_id_, ": has no revision ", in_quotes(revision_),
                     "; expected a branch, a tag or a full commit hash.", said));
  }
  if (code == "EntryNotFound") fail(kOp, concat(what, ": the repository has no such file.", said));
  if (message == "Access to this resource is disabled.") {
    fail(kOp, concat(repo_id_, ": the hub has disabled access to this model"));
  }
  if (message.starts_with("Invalid credentials")) {
    fail(kOp, concat(repo_id_,
                     ": the hub does not know the token that was sent (HF_TOKEN or the "
                     "token file)"));
  }
  if (code == "RepoNotFound" || response.status == 401 || response.status == 404) {
    fail(kOp, concat(repo_id_, ": no such model at ", endpoint_, ", or it is private and ", who,
                     ".", said));
  }
  if (response.status == 403) {
    fail(kOp, concat(repo_id_, ": access is forbidden (", who, ").", said));
  }
  fail(kOp, concat(what, ": ", outcome(response)));
}

HubListing HubClient::list() {
  const std::string url =
      endpoint_ + "/api/models/" + repo_id_ + "/revision/" + url_quoted(revision_);
  const HttpResponse response =
      ask({.url = url, .max_body = kMaxListingBytes}, Redirects::anywhere, url);
  const nlohmann::json document = parse_json(response.body, kOp, url);
  LORAPP_CHECK(document.is_object(), kOp, url, ": expected an object, found ", describe(document));
  Problems problems(kOp, url);
  HubListing listing;
  const auto sha = document.find("sha");
  if (sha != document.end() && sha->is_string()) listing.commit = sha->get<std::string>();
  if (!is_commit_hash(listing.commit)) {
    problems.add("sha is ", sha == document.end() ? "absent" : describe(*sha),
                 ", expected a commit hash of 40 digits");
  }
  const auto siblings = document.find("siblings");
  if (siblings == document.end() || !siblings->is_array()) {
    problems.add("siblings is not an array, expected the list of files");
    problems.throw_if_any();
  }
  constexpr std::size_t kShown = 5;
  for (const nlohmann::json& sibling : *siblings) {
    const auto name = sibling.is_object() ? sibling.find("rfilename") : sibling.end();
    if (!sibling.is_object() || name == sibling.end() || !name->is_string()) {
      problems.add("a file without a name: ", describe(sibling));
    } else if (!is_safe_relative_path(name->get<std::string>())) {
      problems.add("the file name ", in_quotes(name->get<std::string>()),
                   " leads out of the folder or is none");
    } else {
      listing.files.push_back(name->get<std::string>());
    }
    if (problems.size() >= kShown) break;
  }
  problems.throw_if_any();
  std::ranges::sort(listing.files);
  listing.files.erase(std::unique(listing.files.begin(), listing.files.end()), listing.files.end());
  return listing;
}

std::string HubClient::file_url(const std::string& commit, const std::string& file) const {
  return endpoint_ + "/" + repo_id_ + "/resolve/" + commit + "/" + url_quoted(file, "/");
}

HubFile HubClient::inspect(const std::string& commit, const std::string& file) {
  // A redirect within the endpoint is a repository that was renamed; one to another host is where
  // the bytes are, and its own headers say what they are.
  const std::string url = file_url(commit, file);
  const HttpResponse response = ask({.url = url, .head = true}, Redirects::within_endpoint, url);
  LORAPP_CHECK(response.header("x-repo-commit") == commit, kOp, url,
               ": the header X-Repo-Commit is ",
               in_quotes(readable(response.header("x-repo-commit"))), ", expected ", commit,
               "; is HF_ENDPOINT (", endpoint_, ") a hub?");
  HubFile found{.name = file};
  found.etag = bare_etag(
      response.header(response.header("x-linked-etag").empty() ? "etag" : "x-linked-etag"));
  LORAPP_CHECK(is_safe_etag(found.etag), kOp, url, ": the etag is ",
               in_quotes(readable(found.etag)), ", expected a checksum");
  auto size = response.size_header("x-linked-size");
  if (!size && !response.is_redirect()) size = response.size_header("content-length");
  LORAPP_CHECK(size.has_value(), kOp, url,
               ": the hub does not say how long the file is (X-Linked-Size, Content-Length)");
  LORAPP_CHECK(*size <= kMaxFileBytes, kOp, url, ": the hub says that the file has ", *size,
               " bytes; no file is that long");
  found.size = *size;
  return found;
}

HttpResponse HubClient::fetch(const std::string& commit,
                              const std::string& file,
                              std::int64_t offset,
                              HttpRequest request) {
  request.url = file_url(commit, file);
  if (offset > 0) request.headers.push_back("Range: bytes=" + std::to_string(offset) + "-");
  HttpResponse response = follow(std::move(request), Redirects::anywhere);
  const bool unsatisfied = offset > 0 && response.status == 416;
  if (response.failure.empty() && !response.good() && !unsatisfied && !may_pass(response)) {
    refuse(response, file_url(commit, file));
  }
  return response;
}

}  // namespace lorapp::detail
