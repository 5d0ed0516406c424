// One cache for lorapp and Python's huggingface_hub: what one downloads, the other opens.
#include "io/file_lock.hpp"
#include "io/hub_fixture.hpp"
#include "support/error_of.hpp"

#include <lorapp/io/hub_cache.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

using namespace lorapp;
using namespace lorapp::test;
namespace fs = std::filesystem;

namespace {

/// The python that has huggingface_hub; null, with a message, where there is none.
const char* peers_python() {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has huggingface_hub");
  }
  return python;
}

/// Runs the script; its exit status, and what it printed in "out" of `folder`.
int exchange(const std::string& mode, const fs::path& cache, const fs::path& out) {
  const std::string command = std::string("'") + peers_python() +
                              "' '" LORAPP_TEST_SOURCE_DIR
                              "/tests/io/exchange_with_huggingface_hub.py' " +
                              mode + " '" + cache.string() + "' > '" + out.string() + "'";
  return std::system(command.c_str());
}

}  // namespace

TEST_SUITE_BEGIN("io_peers");

TEST_CASE("peers: huggingface_hub opens the snapshot that lorapp downloaded, and finds no fault") {
  if (peers_python() == nullptr) return;
  const Hub hub;
  const HubSnapshot snapshot = hub.download();
  hub.download("refs/pr/1");
  const ScopedVariable offline("HF_HUB_OFFLINE", "1");
  const TemporaryFolder folder;
  REQUIRE(exchange("read", hub.cache.path(), folder / "out") == 0);
  CHECK(read_file(folder / "out") == snapshot.folder.string() + "\n");
}

TEST_CASE("peers: lorapp opens what huggingface_hub downloaded, and has nothing to add to it") {
  if (peers_python() == nullptr) return;
  const Hub hub;
  const ScopedVariable endpoint("HF_ENDPOINT", hub.server.endpoint());
  const TemporaryFolder folder;
  REQUIRE(exchange("download", hub.cache.path(), folder / "out") == 0);
  const ScopedVariable cache("HF_HUB_CACHE", hub.cache.path().string());
  const fs::path resolved = resolve_model_folder("org/tiny");
  CHECK(read_file(folder / "out") == resolved.string() + "\n");
  CHECK(has_all_weights(resolved));
  const auto blobs = hub.blobs();
  const std::string link = fs::read_symlink(resolved / "model.safetensors").string();
  CHECK(hub.download().bytes == 0);
  CHECK(hub.blobs() == blobs);

  const Hub ours;
  const HubSnapshot snapshot = ours.download();
  CHECK(ours.blobs() == blobs);
  CHECK(fs::read_symlink(snapshot.folder / "model.safetensors").string() == link);
  CHECK(read_file(ours.repository_folder() / "refs/main") ==
        read_file(hub.repository_folder() / "refs/main"));
}

TEST_CASE("peers: a download that lorapp left is finished by huggingface_hub, and the other way") {
  if (peers_python() == nullptr) return;
  Hub hub;
  const ScopedVariable endpoint("HF_ENDPOINT", hub.server.endpoint());
  const TemporaryFolder folder;
  hub.files["model.safetensors"]["cut_at"] = {100000, 0, 0, 0};
  hub.publish();
  CHECK(contains(error_of([&] { hub.download(); }), "4 attempts"));
  REQUIRE(exchange("download", hub.cache.path(), folder / "out") == 0);
  const HubSnapshot snapshot = hub.download();
  CHECK(snapshot.bytes == 0);
  CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));

  // "<etag>.incomplete" is also what older releases of huggingface_hub left.
  const fs::path blob = fs::canonical(snapshot.folder / "model.safetensors");
  fs::path partial = blob;
  partial += ".incomplete";
  fs::rename(blob, partial);
  fs::resize_file(partial, 123456);
  fs::remove(snapshot.folder / "model.safetensors");
  CHECK(hub.download().bytes == 300000 - 123456);
  CHECK(read_file(snapshot.folder / "model.safetensors") == hub_pattern(300000));
}

TEST_CASE("peers: lorapp and huggingface_hub wait for each other's locks") {
  if (peers_python() == nullptr) return;
  const TemporaryFolder folder;
  const fs::path path = folder / "x.lock";
  {
    const lorapp::detail::FileLock ours(path, [] {});
    CHECK(exchange("locked", path, folder / "out") == 0);
  }
  CHECK(exchange("locked", path, folder / "out") != 0);
  std::thread theirs([&] { exchange("hold", path, folder / "out"); });
  while (!fs::exists(folder / "x.lock.held")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  int waits = 0;
  CHECK(lorapp::detail::FileLock(path, [&] { ++waits; }).held());
  CHECK(waits > 0);
  theirs.join();
}

TEST_SUITE_END();
