// download_snapshot against servers, lines and disks that fail, lie or attack.
#include "io/http.hpp"
#include "io/hub_fixture.hpp"
#include "support/error_of.hpp"
#include "support/file_size_limit.hpp"

#include <lorapp/io/hub_cache.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <thread>

using namespace lorapp;
using namespace lorapp::test;
namespace fs = std::filesystem;

namespace {

/// A download that must fail: its message. Nothing that looks like a snapshot may be left.
std::string failure(const Hub& hub, const HubDownloadOptions& options) {
  const std::string message = error_of([&] { download_snapshot("org/tiny", "main", options); });
  CHECK(!message.empty());
  CHECK(!fs::exists(hub.repository_folder() / "snapshots" / kCommit));
  CHECK(!fs::exists(hub.repository_folder() / "refs"));
  return message;
}
std::string failure(const Hub& hub) { return failure(hub, hub.options()); }

/// Puts `bytes` where an earlier download of the weights would have left them.
void leave_partial(const Hub& hub, std::string_view bytes) {
  hub.download();
  for (const std::string& blob : hub.blobs()) {
    if (blob.size() != 64) continue;
    hub.cache.write("models--org--tiny/blobs/" + blob + ".incomplete", bytes);
    fs::remove(hub.repository_folder() / "blobs" / blob);
  }
  fs::remove_all(hub.repository_folder() / "snapshots");
}

/// Downloads with what leave_partial() left, and a server that treats ranges in its own way.
void check_arrives(const Hub& hub) {
  const HubSnapshot snapshot = hub.download();
  CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));
}

}  // namespace

TEST_SUITE("io") {
  TEST_CASE("hub download: a partial file that the server cannot go on with is begun anew") {
    if (!HubServer::available()) return;
    const std::string half = hub_pattern(300000).substr(0, 150000);
    for (const char* trouble : {"ignore_range", "unsatisfied", "shift_range"}) {
      CAPTURE(trouble);
      Hub hub;
      leave_partial(hub, half);
      hub.files["model.safetensors"][trouble] = true;
      hub.publish();
      check_arrives(hub);
    }
  }

  TEST_CASE("hub download: a partial file of other bytes, or too long, is begun anew") {
    if (!HubServer::available()) return;
    const Hub hub;
    leave_partial(hub, std::string(150000, 'x'));
    check_arrives(hub);
    leave_partial(hub, std::string(300000, 'x'));
    check_arrives(hub);
    leave_partial(hub, std::string(300001, 'x'));
    check_arrives(hub);
  }

  TEST_CASE("hub download: a whole partial file needs no connection to the other server") {
    if (!HubServer::available()) return;
    const Hub hub;
    leave_partial(hub, hub_pattern(300000));
    const std::size_t before = hub.server.requests("blobs ").size();
    check_arrives(hub);
    CHECK(hub.server.requests("blobs ").size() == before);
  }

  TEST_CASE("hub download: content that is not its etag's is refused and removed") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["config.json"]["content"] = R"({"model_type": "other"})";
    hub.publish();
    CHECK(contains(failure(hub), "config.json: what came has not the checksum"));
    Hub other;
    other.files["model.safetensors"]["content"] = std::string(300000, 'x');
    other.publish();
    CHECK(contains(failure(other), "model.safetensors: what came has not the checksum"));
    for (const std::string& blob : other.blobs()) CHECK(blob.size() == 40);  // the small files
  }

  TEST_CASE("hub download: lengths that disagree are refused, and bytes without end are cut off") {
    if (!HubServer::available()) return;
    for (const int length : {299999, 300001}) {
      Hub hub;
      hub.files["model.safetensors"]["size_header"] = length;
      hub.publish();
      CHECK(contains(failure(hub), "promised " + std::to_string(length)));
    }
    Hub hub;
    hub.files["model.safetensors"]["endless"] = true;
    hub.publish();
    CHECK(contains(failure(hub), "more than the 300000 bytes"));
    Hub shorter;
    shorter.files["model.safetensors"]["content_length"] = 200000;  // of the 300000 it then sends
    shorter.publish();
    CHECK(contains(failure(shorter), "offers 200000 bytes"));
  }

  TEST_CASE("hub download: an etag is a checksum, or at least the name of a file") {
    if (!HubServer::available()) return;
    Hub hub;
    for (const char* etag : {"../../../evil", "", ".hidden", "a/b"}) {
      CAPTURE(etag);
      hub.files["model.safetensors"]["etag"] = etag;
      hub.files["config.json"]["etag"] = etag;
      hub.publish();
      CHECK(contains(failure(hub), "etag"));
    }
    hub.files["model.safetensors"]["etag"] = "mirror-1";
    hub.files["config.json"]["etag"] = "mirror-2";
    hub.publish();
    check_arrives(hub);
  }

  TEST_CASE("hub download: failures that may pass are tried again, a bounded number of times") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["fail"] = {503, 500, 429};
    hub.publish({{"fail", {502, 504}}});
    check_arrives(hub);
    Hub broken;
    broken.publish({{"fail", std::vector<int>(20, 503)}});
    const std::string message = failure(broken);
    CHECK(contains(message, "status 503"));
    CHECK(contains(message, "after 4 attempts"));
    CHECK(broken.server.requests().size() == 4);
  }

  TEST_CASE("hub download: no server at all is an error that says what failed") {
    const TemporaryFolder cache;
    HubDownloadOptions options{.cache_dir = cache.path(), .token = "", .retries = 1};
    options.endpoint = "http://127.0.0.1:9";  // the discard port
    options.retry_wait = 0.01;
    const ScopedVariable no_proxy("no_proxy", "127.0.0.1");
    const ScopedVariable online("HF_HUB_OFFLINE", "");
    const ScopedVariable offline_too("TRANSFORMERS_OFFLINE", "");
    const auto download = [&] { download_snapshot("org/tiny", "main", options); };
    CHECK(contains(error_of(download), "127.0.0.1"));
    for (const char* endpoint : {"ftp://127.0.0.1", "nonsense", "file:///etc", "http://"}) {
      CAPTURE(endpoint);
      options.endpoint = endpoint;
      CHECK(contains(error_of(download), "HF_ENDPOINT"));
    }
    options.endpoint = "http://127.0.0.1:9";
    options.token = "hf_x\r\nX-Evil: 1";
    const std::string message = error_of(download);
    CHECK(contains(message, "token"));
    CHECK(!contains(message, "hf_x"));
  }

  TEST_CASE("hub download: what the hub refuses is one message with its reason") {
    if (!HubServer::available()) return;
    const Hub hub;
    HubDownloadOptions options = hub.options();
    hub.publish({{"gated", true}});
    CHECK(contains(failure(hub), "gated: accept its terms at " + hub.server.endpoint() +
                                     "/org/tiny with your account (no token was sent"));
    options.token = "hf_other";
    CHECK(contains(failure(hub, options), "the token that was sent has no access"));
    CHECK(contains(failure(hub, options), "Access to model org/tiny is restricted."));
    hub.publish({{"private", true}});
    CHECK(contains(failure(hub), "no such model"));
    CHECK(contains(failure(hub), "HF_TOKEN"));
    hub.publish({{"token", "hf_mine"}});
    CHECK(contains(failure(hub, options), "does not know the token"));
    hub.publish({{"no_commit", true}});
    CHECK(contains(failure(hub), "X-Repo-Commit"));
    hub.publish();
    const std::string revision =
        error_of([&] { download_snapshot("org/tiny", "v9", hub.options()); });
    CHECK(contains(revision, "has no revision \"v9\""));
    const std::string absent =
        error_of([&] { download_snapshot("org/absent", "main", hub.options()); });
    CHECK(contains(absent, "org/absent: no such model"));
    for (const char* name : {"", "a/b/c", "../org", "org/", "org--tiny", "org/tiny?x=1"}) {
      CAPTURE(name);
      const std::string bad = error_of([&] { download_snapshot(name, "main", hub.options()); });
      CHECK(contains(bad, "expected owner/name"));
    }
    for (const char* name : {"", "../main", "/main", "a//b", "a/../b", "a\nb"}) {
      CAPTURE(name);
      const std::string bad = error_of([&] { download_snapshot("org/tiny", name, hub.options()); });
      CHECK(contains(bad, "is no revision"));
    }
  }

  TEST_CASE("hub download: a file name that leads out of the folder is refused") {
    if (!HubServer::available()) return;
    for (const char* name : {"../x.json", "/tmp/lorapp-evil.json", "a/../../x", "a//b", ".", "",
                             "a/./b", "config.json/"}) {
      CAPTURE(name);
      Hub hub;
      hub.files[name] = {{"text", "evil"}};
      hub.publish();
      CHECK(contains(failure(hub), "leads out of the folder"));
      CHECK(hub.server.requests("resolve").empty());
    }
  }

  TEST_CASE("hub download: a listing that is not one is refused") {
    if (!HubServer::available()) return;
    const Hub hub;
    const std::vector<std::pair<Json, std::string>> listings = {
        {"{", "line 1"},
        {"<html>Sign in to the hotel</html>", "line 1"},
        {"[]", "expected an object"},
        {"{}", "sha is absent"},
        {R"({"sha": 7, "siblings": []})", "sha is"},
        {R"({"sha": "../../../../evil", "siblings": []})", "expected a commit hash"},
        {R"({"sha": ")" + kCommit + R"(", "siblings": {}})", "siblings is not an array"},
        {R"({"sha": ")" + kCommit + R"(", "siblings": [7, {"rfilename": 7}, {}]})",
         "without a name"},
        {R"({"sha": ")" + kCommit + R"(", "siblings": []})", "none of its 0 files"},
        {{{"repeat", "["}, {"times", 1000000}}, "line 1"},
        {{{"repeat", " "}, {"times", 40000000}}, "longer than any real one"}};
    for (const auto& each : listings) {
      const std::string& expected = each.second;
      CAPTURE(expected);
      hub.publish({{"listing", each.first}});
      const std::string message = failure(hub);
      CAPTURE(message);
      CHECK(contains(message, expected));
    }
  }

  TEST_CASE("hub download: a redirect to what is no address of http, or without end, is refused") {
    if (!HubServer::available()) return;
    const Hub hub;
    hub.publish({{"redirect_to", "file:///etc"}});
    CHECK(contains(failure(hub), "expected an address of http"));
    hub.server.set({{"org/tiny", {{"commit", kCommit}, {"renamed", "org/tiny"}}}});
    CHECK(contains(failure(hub), "redirects"));
  }

  TEST_CASE("hub download: silence is a failure after the timeout") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["stall"] = 20;
    hub.publish();
    HubDownloadOptions options = hub.options();
    options.retries = 0;
    options.timeout = 1;
    const auto begin = std::chrono::steady_clock::now();
    CHECK(contains(failure(hub, options), "model.safetensors"));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(15));
  }

  TEST_CASE("hub download: the stop flag ends it soon, and the next call goes on") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["stall"] = 20;
    hub.publish();
    std::atomic<bool> stop = false;
    HubDownloadOptions options = hub.options();
    options.stop = &stop;
    options.timeout = 60;
    options.on_progress = [&](const HubProgress& progress) {
      if (progress.file_done >= 100000) stop = true;
    };
    const auto begin = std::chrono::steady_clock::now();
    CHECK(contains(failure(hub, options), "stopped"));
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(10));
    CHECK(contains(failure(hub, options), "stopped"));
    hub.files = small_model();
    hub.publish();
    check_arrives(hub);
    CHECK(!hub.server.requests("bytes=").empty());
  }

  TEST_CASE("hub download: HF_HUB_OFFLINE forbids every connection") {
    if (!HubServer::available()) return;
    const Hub hub;
    for (const char* yes : {"1", "true", "Yes", "ON"}) {
      const ScopedVariable offline("HF_HUB_OFFLINE", yes);
      CHECK(hub_is_offline());
      CHECK(contains(failure(hub), "HF_HUB_OFFLINE"));
    }
    CHECK(hub.server.requests().empty());
    const ScopedVariable online("HF_HUB_OFFLINE", "");
    const ScopedVariable also("TRANSFORMERS_OFFLINE", "1");
    CHECK(hub_is_offline());
  }

  TEST_CASE("hub download: a disk without room is told before anything is fetched") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["size_header"] = 1'000'000'000'000'000;
    hub.publish();
    CHECK(contains(failure(hub), "MB are free"));
    CHECK(hub.server.requests("blobs ").empty());
  }

  TEST_CASE("hub download: a write that fails is an error that names the file") {
    if (!HubServer::available()) return;
    const Hub hub;
    {
      const FileSizeLimit limit(100000);
      CHECK(contains(failure(hub), ".incomplete: cannot be written"));
    }
    check_arrives(hub);
  }

  TEST_CASE("hub download: pickled weights alone are refused with the way out") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files.erase("model.safetensors");
    hub.files["pytorch_model.bin"] = {{"text", "no"}};
    hub.publish();
    CHECK(contains(failure(hub), "refs/pr/N"));
    CHECK(hub.server.requests("resolve").empty());
  }

  TEST_CASE("http: two addresses are one server if scheme, host and port agree") {
    using lorapp::detail::url_origin;
    CHECK(url_origin("https://huggingface.co/a") == url_origin("https://HuggingFace.co:443/b?c"));
    CHECK(url_origin("http://a.example") != url_origin("https://a.example"));
    CHECK(url_origin("http://a.example") != url_origin("http://a.example:8080"));
    CHECK(url_origin("http://good.example@evil.example") == url_origin("http://evil.example"));
    for (const char* none : {"", "file:///etc/passwd", "ftp://a.example", "a.b", "http://"}) {
      CAPTURE(none);
      CHECK(url_origin(none).empty());
    }
    CHECK(lorapp::detail::url_quoted("a b/ä?", "/") == "a%20b/%C3%A4%3F");
  }
}
