// The weights of a model: one safetensors file, or shards behind model.safetensors.index.json, as
// one map of names. Every shard's header and the index are checked against each other when it is
// opened; no weight is read.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/safetensors.hpp>

#include <torch/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace lorapp {

/// The name of the single file and of the shard index in a Hugging Face model folder.
inline constexpr const char* kWeightsName = "model.safetensors";
inline constexpr const char* kWeightsIndexName = "model.safetensors.index.json";

class LORAPP_API Checkpoint {
 public:
  /// Opens a model folder, a .safetensors file or an .index.json file. In a folder that has both,
  /// model.safetensors comes before the index, as in transformers. A missing shard, a shard name
  /// with a path in it, a tensor that the index and the shards do not agree about: one Error lists
  /// them all. A folder with pytorch_model.bin only is refused (a pickle can run code), with a line
  /// that says how to convert it.
  static Checkpoint open(const std::filesystem::path& path);

  /// All names, file by file, in the order of their data.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;
  /// As SafetensorsFile::view and release.
  torch::Tensor view(const std::string& name) const;
  void release(const std::string& name) const;

  /// The safetensors files, in order of their names.
  std::vector<std::filesystem::path> files() const;

 private:
  Checkpoint() = default;
  const SafetensorsFile& file_of(const std::string& name) const;

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, std::size_t> file_index_;
};

}  // namespace lorapp
