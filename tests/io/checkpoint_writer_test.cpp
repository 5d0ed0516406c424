// Weights written shard by shard, and read back through Checkpoint.
#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/checkpoint_writer.hpp>

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <set>
#include <string>

using namespace lorapp;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::TemporaryFolder;

namespace {

std::set<std::string> names_in(const TemporaryFolder& folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    names.insert(entry.path().filename().string());
  }
  return names;
}

torch::Tensor floats(std::int64_t count, float value) { return torch::full({count}, value); }

}  // namespace

TEST_SUITE("checkpoint_writer") {
  TEST_CASE("what fits into one shard becomes model.safetensors without an index") {
    const TemporaryFolder folder;
    CheckpointWriter writer(folder.path(), 100);
    writer.add({{"a", floats(10, 1)}, {"b", floats(10, 2)}});
    writer.add({{"c", floats(5, 3)}});
    CHECK(names_in(folder).empty());
    writer.finish();
    CHECK(names_in(folder) == std::set<std::string>{kWeightsName});
    CHECK(writer.num_bytes() == 100);
    const auto checkpoint = Checkpoint::open(folder.path());
    CHECK(torch::equal(checkpoint.view("b"), floats(10, 2)));
    CHECK(torch::equal(checkpoint.view("c"), floats(5, 3)));
  }

  TEST_CASE("a group never straddles shards, and one larger than a shard has a shard of its own") {
    const TemporaryFolder folder;
    CheckpointWriter writer(folder.path(), 100);
    writer.add({{"a", floats(20, 1)}});
    writer.add({{"b", floats(3, 2)}, {"b.more", floats(3, 3)}});  // 80 + 24 bytes: a new shard
    writer.add({{"c", floats(50, 4)}});
    writer.finish();
    CHECK(names_in(folder) == std::set<std::string>{kWeightsIndexName,
                                                    "model-00001-of-00003.safetensors",
                                                    "model-00002-of-00003.safetensors",
                                                    "model-00003-of-00003.safetensors"});
    const auto checkpoint = Checkpoint::open(folder.path());
    CHECK(checkpoint.names() == std::vector<std::string>{"a", "b", "b.more", "c"});
    CHECK(torch::equal(checkpoint.view("c"), floats(50, 4)));
    const auto second = SafetensorsFile::open(folder / "model-00002-of-00003.safetensors");
    CHECK(second.names() == std::vector<std::string>{"b", "b.more"});
    CHECK(contains(lorapp::test::read_file(folder / kWeightsIndexName), "\"total_size\": 304"));
  }

  TEST_CASE(
      "a name given twice, in one shard or two, is an error; so is a writer without tensors") {
    const TemporaryFolder folder;
    CheckpointWriter writer(folder.path(), 10);
    writer.add({{"a", floats(5, 1)}});
    CHECK(contains(error_of([&] { writer.add({{"a", floats(5, 1)}}); }), "\"a\" is given twice"));
    CheckpointWriter empty(folder.path(), 10);
    CHECK(contains(error_of([&] { empty.finish(); }), "no tensor"));
    CHECK(contains(error_of([&] { CheckpointWriter(folder.path(), 0); }), "max_shard_bytes is 0"));
  }
}
