#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

using lorapp::Error;
using lorapp::resolve_model_folder;
using lorapp::test::TemporaryFolder;

namespace {

/// Sets a variable of the environment for a scope.
class ScopedVariable {
 public:
  ScopedVariable(const char* name, const std::string& value) : name_(name) {
    if (const char* before = std::getenv(name)) before_ = before;
    setenv(name, value.c_str(), 1);
  }
  ~ScopedVariable() { before_.empty() ? unsetenv(name_) : setenv(name_, before_.c_str(), 1); }

 private:
  const char* name_;
  std::string before_;
};

}  // namespace

TEST_SUITE("io") {
  TEST_CASE("hub cache: a folder is itself, whether a model of that name is cached or not") {
    const TemporaryFolder folder;
    CHECK(resolve_model_folder(folder.path().string()) == folder.path());
  }

  TEST_CASE("hub cache: an id means the snapshot of refs/main, else one that is complete") {
    const TemporaryFolder cache;
    const ScopedVariable hub("HF_HUB_CACHE", cache.path().string());
    cache.write("models--org--tiny/snapshots/aaa/config.json", "{}");
    cache.write("models--org--tiny/snapshots/bbb/config.json", "{}");
    cache.write("models--org--tiny/refs/main", "bbb");
    CHECK(resolve_model_folder("org/tiny").filename() == "bbb");
    cache.write("models--org--tiny/refs/main", "gone\n");
    CHECK(resolve_model_folder("org/tiny").filename() == "aaa");
    CHECK_THROWS_AS(resolve_model_folder("org/tiny", "tokenizer.model"), Error);
    cache.write("models--org--tiny/snapshots/bbb/tokenizer.model", "");
    CHECK(resolve_model_folder("org/tiny", "tokenizer.model").filename() == "bbb");
  }

  TEST_CASE("hub cache: HF_HOME/hub is the cache where HF_HUB_CACHE is not set") {
    const TemporaryFolder home;
    const ScopedVariable no_cache("HF_HUB_CACHE", "");
    const ScopedVariable hub("HF_HOME", home.path().string());
    home.write("hub/models--gpt/snapshots/x/config.json", "{}");
    CHECK(resolve_model_folder("gpt") == home / "hub/models--gpt/snapshots/x");
  }

  TEST_CASE("hub cache: what is neither a folder nor a cached id is an error that names both") {
    const TemporaryFolder cache;
    const ScopedVariable hub("HF_HUB_CACHE", cache.path().string());
    std::string message;
    try {
      resolve_model_folder("org/absent");
    } catch (const Error& error) {
      message = error.what();
    }
    CHECK(message.find("org/absent") != std::string::npos);
    CHECK(message.find("models--org--absent") != std::string::npos);
    CHECK_THROWS_AS(resolve_model_folder("no/such/folder"), Error);
    CHECK_THROWS_AS(resolve_model_folder("../org"), Error);
    CHECK_THROWS_AS(resolve_model_folder(""), Error);
    CHECK_THROWS_AS(resolve_model_folder(cache.write("a.txt", "").string()), Error);
  }
}
