// download_snapshot against a well-behaved server: the layout of the cache, resuming, sharing.
#include "io/file_lock.hpp"
#include "io/hub_fixture.hpp"
#include "support/error_of.hpp"

#include <lorapp/io/hub_cache.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <thread>

using namespace lorapp;
using namespace lorapp::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::string> kWanted = {"config.json", "generation_config.json",
                                          "model.safetensors", "tokenizer.json"};

}  // namespace

TEST_SUITE("io") {
  TEST_CASE("hub download: the cache gets blobs by etag, relative links and the ref") {
    if (!HubServer::available()) return;
    const Hub hub;
    const HubSnapshot snapshot = hub.download();
    CHECK(snapshot.commit == kCommit);
    CHECK(snapshot.files == kWanted);
    CHECK(snapshot.folder == hub.repository_folder() / "snapshots" / kCommit);
    CHECK(snapshot.bytes > 300000);
    CHECK(read_file(snapshot.folder / "config.json") == R"({"model_type": "llama"})");
    CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));
    CHECK(read_file(hub.repository_folder() / "refs/main") == kCommit);
    CHECK(fs::read_symlink(snapshot.folder / "generation_config.json") ==
          "../../blobs/9e26dfeeb6e641a33dae4961196235bdb965b21b");  // git hash-object of "{}"
    const std::vector<std::string> blobs = hub.blobs();
    CHECK(blobs.size() == kWanted.size());
    for (const std::string& blob : blobs) CHECK((blob.size() == 40 || blob.size() == 64));

    const ScopedVariable cache("HF_HUB_CACHE", hub.cache.path().string());
    CHECK(resolve_model_folder("org/tiny") == snapshot.folder);
    CHECK(resolve_model_folder("org/tiny@main") == snapshot.folder);
    CHECK(resolve_model_folder("org/tiny@" + kCommit) == snapshot.folder);
    CHECK(has_all_weights(snapshot.folder));
  }

  TEST_CASE("hub download: what is there is not asked for again") {
    if (!HubServer::available()) return;
    const Hub hub;
    hub.download();
    const std::size_t before = hub.server.requests("resolve").size();
    CHECK(before > 0);
    CHECK(hub.download().bytes == 0);
    CHECK(hub.server.requests("resolve").size() == before);
    CHECK(hub.server.requests("/api/").size() == 2);
  }

  TEST_CASE("hub download: other copies of the weights and files in folders are left out") {
    if (!HubServer::available()) return;
    Hub hub;
    for (const char* name : {"pytorch_model.bin", "consolidated.safetensors", "tiny.gguf",
                             "README.md", "original/config.json", "original/params.json"}) {
      hub.files[name] = {{"text", "no"}};
    }
    hub.files["model-00001-of-00002.safetensors"] = {{"text", "a"}};
    hub.files["model.safetensors.index.json"] = {{"text", "{}"}};
    hub.publish();
    std::vector<std::string> wanted = kWanted;
    wanted.insert(wanted.end(),
                  {"model-00001-of-00002.safetensors", "model.safetensors.index.json"});
    std::ranges::sort(wanted);
    CHECK(hub.download().files == wanted);

    HubDownloadOptions options = hub.options();
    options.patterns = {"original/*", "*.md"};
    const HubSnapshot more = download_snapshot("org/tiny", "main", options);
    CHECK(more.files ==
          std::vector<std::string>{"README.md", "original/config.json", "original/params.json"});
    CHECK(fs::read_symlink(more.folder / "original/params.json")
              .string()
              .starts_with("../../../blobs/"));
    CHECK(read_file(more.folder / "original/params.json") == "no");
    options.patterns = {"*.onnx"};
    CHECK(contains(error_of([&] { download_snapshot("org/tiny", "main", options); }), "*.onnx"));
  }

  TEST_CASE("hub download: a revision with slashes is a ref in folders, a commit is none") {
    if (!HubServer::available()) return;
    const Hub hub;
    hub.download(kCommit);
    CHECK(!fs::exists(hub.repository_folder() / "refs"));
    hub.download("refs/pr/1");
    CHECK(read_file(hub.repository_folder() / "refs/refs/pr/1") == kCommit);
    const ScopedVariable cache("HF_HUB_CACHE", hub.cache.path().string());
    CHECK(resolve_model_folder("org/tiny@refs/pr/1").filename() == kCommit);
    CHECK(contains(error_of([&] { resolve_model_folder("org/tiny@v2"); }), "refs/v2"));
  }

  TEST_CASE("hub download: the token goes to the endpoint and to no other server") {
    if (!HubServer::available()) return;
    const Hub hub;
    HubDownloadOptions options = hub.options();
    options.token = "hf_secret";
    download_snapshot("org/tiny", "main", options);
    CHECK(hub.server.requests("Bearer_hf_secret").size() == hub.server.requests("hub ").size());
    CHECK(hub.server.requests("blobs ").size() == 1);
    CHECK(hub.server.requests("blobs ").front().ends_with(" - - 200"));
  }

  TEST_CASE("hub download: progress only grows, and ends with everything") {
    if (!HubServer::available()) return;
    const Hub hub;
    HubDownloadOptions options = hub.options();
    HubProgress last;
    bool grows = true;
    std::size_t calls = 0;
    options.on_progress = [&](const HubProgress& progress) {
      grows = grows && progress.done >= last.done && progress.done <= progress.total;
      last = progress;
      ++calls;
    };
    const HubSnapshot snapshot = download_snapshot("org/tiny", "main", options);
    CHECK(grows);
    CHECK(calls > kWanted.size());
    CHECK(last.done == last.total);
    CHECK(last.total == snapshot.bytes);
    CHECK(last.file == "config.json");
  }

  TEST_CASE("hub download: a partial file is gone on with") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["cut_at"] = {100000, 100, 0, 0, 0, 0};
    hub.publish();
    const std::string error = error_of([&] { hub.download(); });
    CHECK(contains(error, "model.safetensors"));
    CHECK(contains(error, "4 attempts"));
    std::vector<std::string> blobs = hub.blobs();
    const auto partial = std::ranges::find_if(
        blobs, [](const std::string& name) { return name.ends_with(".incomplete"); });
    REQUIRE(partial != blobs.end());
    CHECK(fs::file_size(hub.repository_folder() / "blobs" / *partial) == 100100);
    CHECK(!fs::exists(hub.repository_folder() / "snapshots" / kCommit));
    CHECK(!fs::exists(hub.repository_folder() / "refs"));

    hub.files["model.safetensors"].erase("cut_at");
    hub.publish();
    const HubSnapshot snapshot = hub.download();
    CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));
    CHECK(hub.server.requests("blobs ").back().find("bytes=100100-") != std::string::npos);
    CHECK(snapshot.bytes < 300000);
    for (const std::string& blob : hub.blobs()) CHECK(!blob.ends_with(".incomplete"));
  }

  TEST_CASE("hub download: a large file over a line that breaks makes headway, and arrives") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"] = {{"size", 12 << 20}, {"lfs", true}};
    hub.files["model.safetensors"]["cut_at"] = std::vector<int>(10, 3 << 19);
    hub.publish();
    HubDownloadOptions options = hub.options();
    options.retries = 1;
    const HubSnapshot snapshot = download_snapshot("org/tiny", "main", options);
    CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(12 << 20));
    CHECK(hub.server.requests("blobs ").size() >= 8);
  }

  TEST_CASE("hub download: two at once fetch a file once") {
    if (!HubServer::available()) return;
    Hub hub;
    hub.files["model.safetensors"]["stall"] = 0.5;
    hub.publish();
    HubSnapshot other;
    std::thread second([&] { other = hub.download(); });
    const HubSnapshot snapshot = hub.download();
    second.join();
    CHECK(other.folder == snapshot.folder);
    CHECK(hub.server.requests("blobs GET").size() == 1);
    CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));
    CHECK(fs::exists(hub.cache / ".locks/models--org--tiny"));
  }

  TEST_CASE("hub download: a lock that another holds is waited for") {
    const TemporaryFolder folder;
    const fs::path path = folder / "a/b.lock";
    int waits = 0;
    {
      const lorapp::detail::FileLock first(path, [] {});
      CHECK(first.held());
      CHECK_THROWS_AS(lorapp::detail::FileLock(path,
                                               [&] {
                                                 if (++waits == 2) throw Error("test", "enough");
                                               }),
                      Error);
    }
    CHECK(waits == 2);
    CHECK(lorapp::detail::FileLock(path, [] { FAIL("nobody holds it"); }).held());
    CHECK((fs::status(path).permissions() & fs::perms::group_write) != fs::perms::none);
  }

  TEST_CASE("hub download: a renamed repository is found under its old name") {
    if (!HubServer::available()) return;
    const Hub hub;
    hub.server.set({{"org/tiny", {{"commit", kCommit}, {"renamed", "new/tiny"}}},
                    {"new/tiny", repository(hub.files)}});
    CHECK(read_file(hub.download().folder / "model.safetensors") == hub_pattern(300000));
  }

  TEST_CASE("hub download: HF_ENDPOINT, HF_TOKEN and the token file are read") {
    if (!HubServer::available()) return;
    const Hub hub;
    hub.publish({{"private", true}, {"token", "hf_good"}});
    const TemporaryFolder home;
    const ScopedVariable endpoint("HF_ENDPOINT", hub.server.endpoint() + "/");
    const ScopedVariable folder("HF_HOME", home.path().string());
    const ScopedVariable cache("HF_HUB_CACHE", "");
    const ScopedVariable none("HF_TOKEN", "");
    const HubDownloadOptions quick{.retries = 0, .timeout = 5};
    const auto download = [&] { return download_snapshot("org/tiny", "main", quick); };
    CHECK(contains(error_of(download), "HF_TOKEN"));
    home.write("token", "hf_good\n");
    CHECK(download().folder == home / "hub/models--org--tiny/snapshots" / kCommit);
    const ScopedVariable other("HF_TOKEN", "hf_bad");
    CHECK(contains(error_of(download), "does not know the token"));
  }
}
