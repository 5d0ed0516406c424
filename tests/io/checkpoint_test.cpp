// Model folders: one file, or shards behind an index.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>

#include "support/error_of.hpp"
#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"

#include "raw_safetensors.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <string>

using namespace lorapp;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::TemporaryFolder;

namespace {

std::string open_error(const std::filesystem::path& path) {
  return error_of([&] { Checkpoint::open(path); });
}

// Two shards and their index.
void write_sharded(const TemporaryFolder& folder) {
  write_safetensors(folder / "model-00001-of-00002.safetensors",
                    {{"a", torch::full({2, 3}, 1.f)}, {"b", torch::full({4}, 2.f)}});
  write_safetensors(folder / "model-00002-of-00002.safetensors", {{"c", torch::full({5}, 3.f)}});
  folder.write(kWeightsIndexName, R"({"metadata": {"total_size": 60}, "weight_map": {
    "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
    "c": "model-00002-of-00002.safetensors"}})");
}

}  // namespace

TEST_SUITE("checkpoint") {
  TEST_CASE("a folder with one file, and the file itself, open as the same tensors") {
    const TemporaryFolder folder;
    write_safetensors(folder / kWeightsName, {{"w", torch::arange(6)}, {"x", torch::ones({1})}});
    for (const auto& path : {folder.path(), folder / kWeightsName}) {
      const auto checkpoint = Checkpoint::open(path);
      CHECK(checkpoint.names() == std::vector<std::string>{"w", "x"});
      CHECK(checkpoint.contains("w"));
      CHECK_FALSE(checkpoint.contains("v"));
      CHECK(checkpoint.info("w").dtype == "I64");
      CHECK(torch::equal(checkpoint.view("w"), torch::arange(6)));
      checkpoint.release("w");
      CHECK(checkpoint.files() == std::vector{folder / kWeightsName});
      CHECK(contains(error_of([&] { checkpoint.view("v"); }), "has no tensor \"v\" among its 2"));
    }
  }

  TEST_CASE("shards open as one map, from the folder and from the index") {
    const TemporaryFolder folder;
    write_sharded(folder);
    for (const auto& path : {folder.path(), folder / kWeightsIndexName}) {
      const auto checkpoint = Checkpoint::open(path);
      CHECK(checkpoint.names() == std::vector<std::string>{"a", "b", "c"});
      CHECK(checkpoint.view("c")[4].item<float>() == 3);
      CHECK(checkpoint.view("a").sizes() == at::IntArrayRef{2, 3});
      CHECK(checkpoint.files().size() == 2);
    }
  }

  TEST_CASE("a single file comes before the index, as in transformers") {
    const TemporaryFolder folder;
    write_sharded(folder);
    write_safetensors(folder / kWeightsName, {{"only", torch::ones({1})}});
    CHECK(Checkpoint::open(folder.path()).names() == std::vector<std::string>{"only"});
    CHECK(Checkpoint::open(folder / kWeightsIndexName).names().size() == 3);
  }

  TEST_CASE("index and shards that disagree are one error with every disagreement") {
    const TemporaryFolder folder;
    write_sharded(folder);
    write_safetensors(folder / "model-00002-of-00002.safetensors",
                      {{"b", torch::ones({4})}, {"extra", torch::ones({1})}});
    folder.write("broken.safetensors", "x");
    folder.write(kWeightsIndexName, R"({"weight_map": {
      "a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
      "c": "model-00002-of-00002.safetensors", "d": "missing.safetensors", "e": "missing.safetensors",
      "f": "broken.safetensors"}})");
    const std::string message = open_error(folder.path());
    CHECK(contains(message, "5 problems"));
    CHECK(contains(
        message,
        "tensor \"c\" should be in model-00002-of-00002.safetensors, which does not have it"));
    CHECK(contains(
        message,
        "tensor \"b\" is in model-00002-of-00002.safetensors, but the index says model-00001"));
    CHECK(contains(message,
                   "tensor \"extra\" of model-00002-of-00002.safetensors is not in the index"));
    CHECK(
        contains(message, "shard missing.safetensors is missing (2 tensors, the first is \"d\")"));
    CHECK(contains(message, "broken.safetensors: has 1 bytes"));
  }

  TEST_CASE("shard names that lead out of the folder are refused") {
    const TemporaryFolder folder;
    write_safetensors(folder / "outside.safetensors", {{"a", torch::ones({1})}});
    for (const std::string name : {"../outside.safetensors", "/etc/passwd", "sub/x.safetensors",
                                   "..", "", "x.bin", "sub\\\\x.safetensors"}) {
      folder.write("model/model.safetensors.index.json",
                   R"({"weight_map": {"a": ")" + name + "\"}}");
      CHECK_MESSAGE(contains(open_error(folder / "model"),
                             "is not allowed; expected the name of a .safetensors file"),
                    name);
    }
  }

  TEST_CASE("an index that is no index is an error that names the field") {
    const TemporaryFolder folder;
    const auto index_error = [&](std::string_view text) {
      folder.write(kWeightsIndexName, text);
      return open_error(folder.path());
    };
    CHECK(contains(index_error("{"), "line 1"));
    CHECK(contains(index_error("[]"), "expected an object"));
    CHECK(contains(index_error("{}"), "weight_map is missing"));
    CHECK(contains(index_error(R"({"weight_map": 5})"), "weight_map is 5"));
    CHECK(contains(index_error(R"({"weight_map": {}})"), "weight_map is empty"));
    CHECK(contains(index_error(R"({"weight_map": {"a": 1, "b": null}})"), "2 problems"));
    CHECK(contains(index_error(R"({"weight_map": {"a": "x.safetensors", "a": "x.safetensors"}})"),
                   "more than once"));
  }

  TEST_CASE("a folder without safetensors says what it holds, and a pickle how it is converted") {
    const TemporaryFolder folder;
    CHECK(contains(open_error(folder.path()), "found nothing"));
    folder.write("config.json", "{}");
    CHECK(contains(open_error(folder.path()), "found config.json"));
    folder.write("pytorch_model.bin", "x");
    const std::string message = open_error(folder.path());
    CHECK(contains(message, "Python pickle"));
    CHECK(contains(message, "save_pretrained"));
    CHECK(contains(open_error(folder / "pytorch_model.bin"),
                   "expected a model folder, a .safetensors file"));
    CHECK(contains(open_error(folder / "none"), "no such file or folder"));
    for (int i = 0; i < 20; ++i) folder.write("other/" + std::to_string(i), "");
    CHECK(contains(open_error(folder / "other"), "(20 files)"));
  }

  TEST_CASE("the shard index of a published 7B model parses, and every missing shard is named") {
    LORAPP_NEEDS_SHARED_DATA(folder, "models/mistral-7b-v0.1-metadata");
    const std::string message = open_error(folder);
    CHECK(contains(message, "shard model-00001-of-00002.safetensors is missing"));
    CHECK(contains(message, "shard model-00002-of-00002.safetensors is missing"));
  }
}
