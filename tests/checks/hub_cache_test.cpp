#include "hub_cache.hpp"
#include "support/error_of.hpp"
#include "support/scoped_variable.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <doctest/doctest.h>

#include <string>

using lorapp::Error;
using lorapp::resolve_model_folder;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::ScopedVariable;
using lorapp::test::TemporaryFolder;

TEST_SUITE("io") {
  TEST_CASE("hub cache: a folder is itself, whether a model of that name is cached or not") {
    const TemporaryFolder folder;
    CHECK(resolve_model_folder(folder.path().string()) == folder.path());
  }

  TEST_CASE(
      "hub cache: an id means the snapshot of refs/main, and no other where it lacks a file") {
    const TemporaryFolder cache;
    const ScopedVariable hub("HF_HUB_CACHE", cache.path().string());
    cache.write("models--org--tiny/snapshots/aaa/config.json", "{}");
    cache.write("models--org--tiny/snapshots/bbb/config.json", "{}");
    cache.write("models--org--tiny/snapshots/aaa/tokenizer.model", "");
    cache.write("models--org--tiny/refs/main", "bbb");
    CHECK(resolve_model_folder("org/tiny").filename() == "bbb");
    CHECK(contains(error_of([] { resolve_model_folder("org/tiny", "tokenizer.model"); }),
                   "snapshot bbb (main) holds no tokenizer.model"));
    cache.write("models--org--tiny/.no_exist/bbb/tokenizer.model", "");
    CHECK(contains(error_of([] { resolve_model_folder("org/tiny", "tokenizer.model"); }),
                   "commit bbb of the repository has no tokenizer.model"));
    cache.write("models--org--tiny/refs/main", "gone\n");
    CHECK(contains(error_of([] { resolve_model_folder("org/tiny"); }), "snapshot gone"));
    cache.write("models--org--tiny/refs/main", "../../aaa");
    CHECK(contains(error_of([] { resolve_model_folder("org/tiny"); }), "holds no commit"));
  }

  TEST_CASE(
      "hub cache: without refs/main the only whole snapshot counts, and several are an error") {
    const TemporaryFolder cache;
    const ScopedVariable hub("HF_HUB_CACHE", cache.path().string());
    cache.write("models--org--tiny/snapshots/aaa/config.json", "{}");
    cache.write("models--org--tiny/snapshots/bbb/generation_config.json", "{}");
    CHECK(resolve_model_folder("org/tiny").filename() == "aaa");
    cache.write("models--org--tiny/snapshots/bbb/config.json", "{}");
    const std::string message = error_of([] { resolve_model_folder("org/tiny"); });
    CHECK(contains(message, "aaa, bbb"));
    CHECK(contains(message, "name@commit"));
  }

  TEST_CASE("hub cache: a revision behind the name is a commit, or what its ref says") {
    const std::string commit(40, 'c');
    const TemporaryFolder cache;
    const ScopedVariable hub("HF_HUB_CACHE", cache.path().string());
    cache.write("models--org--tiny/snapshots/" + commit + "/config.json", "{}");
    cache.write("models--org--tiny/snapshots/bbb/config.json", "{}");
    cache.write("models--org--tiny/refs/main", "bbb");
    cache.write("models--org--tiny/refs/refs/pr/1", commit);
    CHECK(resolve_model_folder("org/tiny@" + commit).filename() == commit);
    CHECK(resolve_model_folder("org/tiny@refs/pr/1").filename() == commit);
    CHECK(resolve_model_folder("org/tiny@main").filename() == "bbb");
    CHECK(contains(error_of([] { resolve_model_folder("org/tiny@v1"); }), "refs/v1 is not there"));
    for (const char* name : {"org/tiny@", "org/tiny@../x", "org/tiny@/x", "org/tiny@a//b",
                             "org--tiny", "org/tiny.git", "-org/tiny", "org/..", "a b"}) {
      CAPTURE(name);
      CHECK(!lorapp::parse_hub_name(name));
      CHECK(contains(error_of([&] { resolve_model_folder(name); }), "no such folder"));
    }
  }

  TEST_CASE("hub cache: weights are whole when every file of the index is there") {
    const TemporaryFolder folder;
    CHECK(!lorapp::has_all_weights(folder.path()));
    folder.write("config.json", "{}");
    CHECK(!lorapp::has_all_weights(folder.path()));
    folder.write("model.safetensors.index.json",
                 R"({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})");
    folder.write("model-1.safetensors", "");
    CHECK(!lorapp::has_all_weights(folder.path()));
    folder.write("model-2.safetensors", "");
    CHECK(lorapp::has_all_weights(folder.path()));
    const TemporaryFolder single;
    std::filesystem::create_symlink("gone", single / "model.safetensors");
    CHECK(!lorapp::has_all_weights(single.path()));
    single.write("gone", "");
    CHECK(lorapp::has_all_weights(single.path()));
  }

  TEST_CASE("hub cache: the environment is read as huggingface_hub reads it") {
    const TemporaryFolder home;
    const ScopedVariable user("HOME", home.path().string());
    const ScopedVariable no_cache("HF_HUB_CACHE", "");
    const ScopedVariable no_old_cache("HUGGINGFACE_HUB_CACHE", "");
    const ScopedVariable no_home("HF_HOME", "");
    const ScopedVariable no_xdg("XDG_CACHE_HOME", "");
    const ScopedVariable no_token_file("HF_TOKEN_PATH", "");
    const ScopedVariable implicit("HF_HUB_DISABLE_IMPLICIT_TOKEN", "");
    using namespace lorapp::detail;
    CHECK(hub_cache() == home / ".cache/huggingface/hub");
    const ScopedVariable xdg("XDG_CACHE_HOME", "/x");
    CHECK(hub_cache() == "/x/huggingface/hub");
    const ScopedVariable hf_home("HF_HOME", "~/$LORAPP_A/${LORAPP_A}b/$LORAPP_NONE");
    const ScopedVariable a("LORAPP_A", "v");
    CHECK(hub_cache() == home / "v/vb/$LORAPP_NONE/hub");
    const ScopedVariable old_cache("HUGGINGFACE_HUB_CACHE", "/old");
    CHECK(hub_cache() == "/old");
    const ScopedVariable cache("HF_HUB_CACHE", "/new");
    CHECK(hub_cache() == "/new");

    const ScopedVariable no_token("HF_TOKEN", "");
    const ScopedVariable no_old_token("HUGGING_FACE_HUB_TOKEN", "");
    CHECK(hub_token().empty());
    home.write("v/vb/$LORAPP_NONE/token", " hf_file\n");
    CHECK(hub_token() == "hf_file");
    const ScopedVariable old_token("HUGGING_FACE_HUB_TOKEN", "hf_old");
    CHECK(hub_token() == "hf_old");
    const ScopedVariable token("HF_TOKEN", "hf_new\r\n");
    CHECK(hub_token() == "hf_new");
    const ScopedVariable disabled("HF_HUB_DISABLE_IMPLICIT_TOKEN", "True");
    CHECK(hub_token().empty());
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
