// CheckpointWriter: the weights of a model written one shard at a time.
// What is in memory at once is one shard; names and index are those of Hugging Face's folders.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/io/safetensors.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace lorapp {

/// Bytes of a shard unless it is said otherwise: what transformers 4 writes.
inline constexpr std::int64_t kDefaultShardBytes = 5'000'000'000;

/// Writes model.safetensors, or model-00001-of-0000N.safetensors and
/// model.safetensors.index.json where the weights exceed one shard.
///
/// The files have their final names after finish() alone; what a writer that was not finished left
/// behind has other names and is the caller's to remove (write into a folder of your own).
class LORAPP_API CheckpointWriter {
 public:
  /// `dir` exists. A shard holds at most `max_shard_bytes` of data, unless one group is larger.
  explicit CheckpointWriter(std::filesystem::path dir,
                            std::int64_t max_shard_bytes = kDefaultShardBytes);

  /// Takes tensors that belong together, into one shard; writes the shard before if they do not fit
  /// into it. A name given before is an Error.
  void add(NamedTensors group);

  /// Writes what is left and gives the files their names. Call it once.
  void finish();

  /// Bytes of tensor data so far.
  std::int64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  void write_shard();

  std::filesystem::path dir_;
  std::int64_t max_shard_bytes_;
  std::int64_t num_bytes_ = 0;
  NamedTensors shard_;
  std::int64_t shard_bytes_ = 0;
  std::vector<std::filesystem::path> files_;        // written so far, under temporary names
  std::map<std::string, std::size_t> shard_index_;  // tensor → its shard
};

}  // namespace lorapp
