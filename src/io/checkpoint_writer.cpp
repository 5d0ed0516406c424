// Shards under temporary names, their final ones once it is known how many there are.
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/checkpoint_writer.hpp>

#include <cstdio>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

constexpr const char* kOp = "checkpoint";

std::string shard_name(std::size_t index, std::size_t count) {
  char name[64];
  std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

}  // namespace

CheckpointWriter::CheckpointWriter(std::filesystem::path dir, std::int64_t max_shard_bytes)
    : dir_(std::move(dir)), max_shard_bytes_(max_shard_bytes) {
  LORAPP_CHECK(max_shard_bytes >= 1, kOp, "max_shard_bytes is ", max_shard_bytes,
               "; expected 1 or more");
}

void CheckpointWriter::add(NamedTensors group) {
  std::int64_t bytes = 0;
  for (const auto& [name, tensor] : group) bytes += static_cast<std::int64_t>(tensor.nbytes());
  if (!shard_.empty() && shard_bytes_ + bytes > max_shard_bytes_) write_shard();
  for (auto& [name, tensor] : group) {
    LORAPP_CHECK(shard_index_.emplace(name, files_.size()).second, kOp, dir_.string(), ": tensor ",
                 detail::in_quotes(name), " is given twice");
    shard_.emplace_back(std::move(name), std::move(tensor));
  }
  shard_bytes_ += bytes;
  num_bytes_ += bytes;
}

void CheckpointWriter::write_shard() {
  const std::filesystem::path file =
      dir_ / ("shard-" + std::to_string(files_.size() + 1) + ".unfinished");
  write_safetensors(file, shard_);
  files_.push_back(file);
  shard_.clear();
  shard_bytes_ = 0;
}

void CheckpointWriter::finish() {
  LORAPP_CHECK(!shard_index_.empty(), kOp, dir_.string(), ": there is no tensor to write");
  write_shard();
  std::error_code error;
  const auto name_file = [&](const std::filesystem::path& from, const std::string& to) {
    std::filesystem::rename(from, dir_ / to, error);
    LORAPP_CHECK(!error, kOp, (dir_ / to).string(), ": cannot be written: ", error.message());
  };
  if (files_.size() == 1) {
    name_file(files_.front(), kWeightsName);
    return;
  }
  for (std::size_t i = 0; i < files_.size(); ++i) {
    name_file(files_[i], shard_name(i, files_.size()));
  }
  nlohmann::json weight_map = nlohmann::json::object();
  for (const auto& [name, index] : shard_index_)
    weight_map[name] = shard_name(index, files_.size());
  detail::write_json_file(
      dir_ / kWeightsIndexName,
      nlohmann::json{{"metadata", {{"total_size", num_bytes_}}}, {"weight_map", weight_map}});
}

}  // namespace lorapp
