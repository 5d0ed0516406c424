// safetensors files: a checked header, tensors mapped one at a time, and a writer with the official
// writer's bytes. Opening checks everything the header claims; after that, names, shapes and
// offsets can be trusted.
#pragma once

#include <lorapp/export.hpp>

#include <torch/types.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// One entry of a safetensors header.
struct TensorInfo {
  /// The format's name, e.g. "BF16"; parse_safetensors_dtype gives LibTorch's.
  std::string dtype;
  std::vector<std::int64_t> shape;
  /// The bytes [begin, end) of the tensor, counted from the end of the header.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;

  std::uint64_t nbytes() const noexcept { return end - begin; }
};

/// A safetensors file opened for reading: a handle that is cheap to copy, and whose const members
/// may be called from several threads.
///
/// Only the header is read when it is opened. Each tensor is mapped on demand and by itself, so
/// that the address space and the memory in use stay those of the tensors that are alive, however
/// large the file is.
///
/// The file must keep its size while it is open: view() compares it again and throws, but a file
/// that another process cuts short while a view of the lost part is alive ends this process with
/// SIGBUS on the next access, as with any mapped file. Replacing the file by renaming another over
/// it (as write_safetensors does) is harmless.
class LORAPP_API SafetensorsFile {
 public:
  /// Opens and checks a file. A cut, lying or malformed header is one Error that lists every
  /// problem: lengths beyond the file, unknown types, shapes that do not match their bytes, gaps,
  /// overlaps, names given twice, bytes left over.
  static SafetensorsFile open(const std::filesystem::path& path);

  const std::filesystem::path& path() const;
  /// The text entries of `__metadata__`.
  const std::map<std::string, std::string>& metadata() const;
  /// All names, in the order of their data in the file.
  std::vector<std::string> names() const;
  bool contains(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const;

  /// The tensor as an alias of the mapped file: nothing is read until it is touched. It is
  /// read-only (writing to it is a segmentation fault: clone() it first), and keeps its part of the
  /// file mapped for as long as it or a view of it lives. Data that a foreign writer left unaligned
  /// for its type is copied instead.
  torch::Tensor view(const std::string& name) const;

  /// Drops the resident pages of a tensor from this process; live views stay valid, and read the
  /// file again when touched. Does nothing where there is no live view.
  void release(const std::string& name) const;

 private:
  struct State;
  explicit SafetensorsFile(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

/// Named tensors, as write_safetensors takes them.
using NamedTensors = std::vector<std::pair<std::string, torch::Tensor>>;

/// Writes a safetensors file, whole or not at all. The order in the file and the header are the
/// official writer's (larger types first, then by name; header padded with spaces to 8 bytes), so
/// equal tensors give equal files. Tensors on another device or with gaps are copied one at a time.
LORAPP_API void write_safetensors(const std::filesystem::path& path,
                                  const NamedTensors& tensors,
                                  const std::map<std::string, std::string>& metadata = {
                                      {"format", "pt"}});

}  // namespace lorapp
