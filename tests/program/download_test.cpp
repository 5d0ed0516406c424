// lorapp download, and models that other subcommands fetch: against a hub of the test's own.
#include "process.hpp"
#include "support/hub_server.hpp"

#include <doctest/doctest.h>

#include <csignal>
#include <filesystem>
#include <string>

using namespace lorapp::test;

namespace {

/// A hub with the world's model as "org/tiny", and an empty cache.
struct HubWorld {
  World world;
  HubServer server;
  TemporaryFolder cache;
  Json files = Json::object();

  HubWorld() {
    for (const std::string& name : files_in(world.model())) {
      files[name] = {{"path", world.path("model/" + name)}};
    }
    files["model.safetensors"]["lfs"] = true;
    publish();
  }
  void publish() const { server.set({{"org/tiny", repository(files)}}); }

  /// The program with the hub in its environment, in which run_process() allows no hub.
  Outcome run(const Arguments& arguments,
              const std::string& offline = "0",
              const ProcessOptions& options = {}) const {
    Arguments all = {"HF_ENDPOINT=" + server.endpoint(),
                     "HF_HUB_CACHE=" + cache.path().string(),
                     "HF_HUB_OFFLINE=" + offline,
                     "HF_HOME=" + (cache / "home").string(),
                     "HF_TOKEN=",
                     LORAPP_PROGRAM};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return run_process("/usr/bin/env", all, options);
  }
  std::filesystem::path snapshot() const { return cache / "models--org--tiny/snapshots" / kCommit; }
};

const Arguments kGenerate = {"generate", "--model",          "org/tiny", "--prompt",  "The dog",
                             "--json",   "--max-new-tokens", "3",        "--threads", "1"};

}  // namespace

TEST_SUITE("program") {
  TEST_CASE("download: the snapshot's place, commit and files are the result") {
    if (!HubServer::available()) return;
    const HubWorld hub;
    const Outcome first = hub.run({"download", "org/tiny", "--json"});
    CHECK(first.status == 0);
    const Json result = first.json();
    CHECK(result["repo_id"] == "org/tiny");
    CHECK(result["revision"] == "main");
    CHECK(result["commit"] == kCommit);
    CHECK(result["path"] == hub.snapshot().string());
    CHECK(result["files"].size() == hub.files.size());
    CHECK(contains(first.err, "Downloading model.safetensors, "));
    for (const auto& [name, file] : hub.files.items()) {
      CHECK(read_file(hub.snapshot() / name) == read_file(hub.world.path("model/" + name)));
    }
    const Outcome again =
        hub.run({"download", "--model", "org/tiny", "--revision", "refs/pr/1", "--json"});
    CHECK(again.json()["bytes"] == 0);
    CHECK(again.json()["revision"] == "refs/pr/1");
    const Outcome quiet = hub.run({"download", "org/tiny@" + kCommit, "--quiet"});
    CHECK(quiet.err.empty());
    CHECK(contains(quiet.out, "commit: " + kCommit));
  }

  TEST_CASE(
      "download: a model that the cache has not is fetched, and is there without a connection") {
    if (!HubServer::available()) return;
    const HubWorld hub;
    const Outcome absent = hub.run(kGenerate, "1");
    CHECK(absent.status == 1);
    CHECK(contains(absent.err, "HF_HUB_OFFLINE"));
    CHECK(hub.server.requests().empty());

    // The tokenizer alone first: what is missing then is fetched when it is needed.
    const Outcome tokens = hub.run({"tokenize", "--model", "org/tiny", "--text", "The dog"});
    CHECK(tokens.status == 0);
    CHECK(hub.server.requests("model.safetensors").empty());
    const Outcome first = hub.run(kGenerate);
    CHECK(first.status == 0);
    CHECK(contains(first.err, "not in the local Hugging Face cache as a whole; fetching it"));
    const std::size_t requests = hub.server.requests().size();
    const Outcome second = hub.run(kGenerate, "1");
    CHECK(second.json()["tokens"] == first.json()["tokens"]);
    CHECK(hub.run(kGenerate).status == 0);
    CHECK(hub.server.requests().size() == requests);
  }

  TEST_CASE("download: inspect fetches the configuration and no weights") {
    if (!HubServer::available()) return;
    const HubWorld hub;
    const Json result = hub.run({"inspect", "org/tiny", "--json"}).json();
    CHECK(result["kind"] == "model");
    CHECK(result["weights"].is_null());
    CHECK(hub.server.requests("model.safetensors").empty());
  }

  TEST_CASE("download: an adapter for a revision says so where PEFT looks for it") {
    if (!HubServer::available()) return;
    const HubWorld hub;
    Arguments arguments = hub.world.finetune({"--max-steps", "1"});
    arguments[2] = "org/tiny@refs/pr/1";
    const Outcome outcome = hub.run(arguments);
    CAPTURE(outcome.err);
    CHECK(outcome.status == 0);
    const Json config = Json::parse(read_file(hub.world.path("out/adapter_config.json")));
    CHECK(config["base_model_name_or_path"] == "org/tiny");
    CHECK(config["revision"] == "refs/pr/1");
  }

  TEST_CASE("download: Ctrl-C ends it with 130, and the same command goes on") {
    if (!HubServer::available()) return;
    HubWorld hub;
    hub.files["model.safetensors"]["stall"] = 30;
    hub.publish();
    const Outcome stopped =
        hub.run({"download", "org/tiny"}, "0",
                {.signal = SIGINT, .signal_when = "Downloading model.safetensors"});
    CHECK(stopped.status == 130);
    CHECK(contains(stopped.err, "Stopped; the same command goes on"));
    CHECK(stopped.out.empty());
    CHECK(!std::filesystem::exists(hub.snapshot()));
    hub.files["model.safetensors"].erase("stall");
    hub.publish();
    CHECK(hub.run({"download", "org/tiny"}).status == 0);
    CHECK(read_file(hub.snapshot() / "model.safetensors") ==
          read_file(hub.world.path("model/model.safetensors")));
  }

  TEST_CASE("download: what is wrong is status 2 for the command line and 1 for the hub") {
    if (!HubServer::available()) return;
    const HubWorld hub;
    CHECK(hub.run({"download"}).status == 2);
    CHECK(hub.run({"download", "a/b/c"}).status == 2);
    CHECK(hub.run({"download", "org/tiny@main", "--revision", "v1"}).status == 2);
    CHECK(hub.server.requests().empty());
    const Outcome absent = hub.run({"download", "org/absent", "--json"});
    CHECK(absent.status == 1);
    CHECK(absent.out.empty());
    CHECK(contains(absent.err, "org/absent: no such model"));
    const Outcome generated = hub.run({"generate", "--model", "org/absent", "--prompt", "x"});
    CHECK(generated.status == 1);
    CHECK(contains(generated.err, "org/absent: no such model"));
  }
}
