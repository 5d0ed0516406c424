// A server on 127.0.0.1 that speaks the hub's protocol: tests/support/hub_server.py in a process of
// its own.
#pragma once

#include "support/scoped_variable.hpp"
#include "support/temporary_folder.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace lorapp::test {

using Json = nlohmann::json;

inline const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";

/// The bytes of a file that world.json gives a "size" instead of a "text".
inline std::string hub_pattern(std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) {
    const std::size_t at = i % 64257;
    bytes[i] = static_cast<char>((at * 7 + at / 251) % 256);
  }
  return bytes;
}

class HubServer {
 public:
  /// Whether this machine can run it; a test without it says so and returns.
  static bool available() {
    const bool there = std::system("python3 -c 'import http.server' >/dev/null 2>&1") == 0;
    if (!there) MESSAGE("skipped: no python3 on this machine");
    return there;
  }

  HubServer() {
    set({});
    const std::string script = std::string(LORAPP_TEST_SOURCE_DIR) + "/tests/support/hub_server.py";
    child_ = fork();
    REQUIRE(child_ >= 0);
    if (child_ == 0) {
      const int nowhere = open("/dev/null", O_RDWR);
      for (const int fd : {STDIN_FILENO, STDOUT_FILENO}) dup2(nowhere, fd);
      execlp("python3", "python3", script.c_str(), folder_.path().c_str(), nullptr);
      _exit(127);
    }
    for (int i = 0; i < 600 && read_file(folder_ / "ports").empty(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    std::istringstream(read_file(folder_ / "ports")) >> port_;
    REQUIRE(port_ != 0);
  }
  ~HubServer() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  HubServer(const HubServer&) = delete;
  HubServer& operator=(const HubServer&) = delete;

  std::string endpoint() const { return "http://127.0.0.1:" + std::to_string(port_); }

  /// What there is from now on: repositories by id.
  void set(const Json& repos) const {
    folder_.write("world.new", Json{{"repos", repos}}.dump());
    std::filesystem::rename(folder_ / "world.new", folder_ / "world.json");
  }

  /// "SERVER METHOD PATH RANGE AUTHORIZATION STATUS" of every request so far that has `part` in it.
  std::vector<std::string> requests(std::string_view part = {}) const {
    std::istringstream log(read_file(folder_ / "requests"));
    std::vector<std::string> found;
    for (std::string line; std::getline(log, line);) {
      if (line.find(part) != line.npos) found.push_back(line);
    }
    return found;
  }

 private:
  TemporaryFolder folder_;
  pid_t child_ = -1;
  int port_ = 0;
  // A proxy or the offline switch of whoever runs the tests are not meant for this server.
  ScopedVariable no_proxy_{"no_proxy", "127.0.0.1"};
  ScopedVariable no_proxy_capital_{"NO_PROXY", "127.0.0.1"};
  ScopedVariable online_{"HF_HUB_OFFLINE", "0"};
};

/// A model of a few files as a repository's "files".
inline Json small_model() {
  return {{"config.json", {{"text", R"({"model_type": "llama"})"}}},
          {"generation_config.json", {{"text", "{}"}}},
          {"tokenizer.json", {{"text", R"({"version": "1.0"})"}}},
          {"empty.txt", {{"text", ""}}},
          {"model.safetensors", {{"size", 300000}, {"lfs", true}}}};
}

inline Json repository(const Json& files) {
  return {{"commit", kCommit}, {"revisions", {"main", "refs/pr/1"}}, {"files", files}};
}

}  // namespace lorapp::test
