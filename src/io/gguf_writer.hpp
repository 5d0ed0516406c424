// GGUF files, version 3: keys with values, then tensors, written one after the other.
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include "atomic_file.hpp"

#include <lorapp/export.hpp>
#include <lorapp/io/gguf.hpp>

#include <torch/types.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace lorapp::detail {

using GgufValue = std::variant<std::uint32_t,
                               float,
                               bool,
                               std::string,
                               std::vector<float>,
                               std::vector<std::int32_t>,
                               std::vector<std::string>>;

/// Writes one file, whole or not at all: set() all keys and declare() all tensors, then write()
/// each in the same order, then finish().
class LORAPP_API GgufWriter {
 public:
  explicit GgufWriter(std::filesystem::path path) : path_(path), file_(std::move(path)) {}

  /// A key is given once.
  void set(std::string key, GgufValue value) {
    values_.emplace_back(std::move(key), std::move(value));
  }
  void declare(std::string name, std::vector<std::int64_t> shape, GgufType type);

  /// The next tensor, of the declared shape and any floating dtype. It is converted some hundred
  /// thousand numbers at a time.
  void write(const std::string& name, const torch::Tensor& values);
  /// Gives the file its name; Error where a tensor is missing.
  void finish();

  std::size_t num_tensors() const noexcept { return tensors_.size(); }
  /// Of the whole file.
  std::uint64_t num_bytes() const noexcept { return num_bytes_; }

 private:
  struct Declared {
    std::string name;
    std::vector<std::int64_t> shape;
    GgufType type;
  };

  void write_header();
  void append(const void* data, std::size_t size);
  void align();

  std::filesystem::path path_;
  AtomicFile file_;
  std::vector<std::pair<std::string, GgufValue>> values_;
  std::vector<Declared> tensors_;
  std::size_t next_ = 0;
  bool started_ = false;
  std::uint64_t num_bytes_ = 0;
};

}  // namespace lorapp::detail
