// A file opened for reading, and read-only maps of parts of it.
// Offsets and sizes are bytes; a map may begin anywhere, pages are this file's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

namespace lorapp::detail {

/// A regular file held open, and the size it had then.
class InputFile {
 public:
  /// Errors carry `op` and name the file.
  InputFile(std::filesystem::path path, std::string op);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const noexcept { return path_; }
  const std::string& op() const noexcept { return op_; }
  std::uint64_t size() const noexcept { return size_; }
  int descriptor() const noexcept { return fd_; }

  /// Exactly `count` bytes from `offset`, or an Error.
  void read(std::uint64_t offset, void* to, std::size_t count) const;
  /// Error if the file no longer has the size it was opened with.
  void check_unchanged() const;

 private:
  std::filesystem::path path_;
  std::string op_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

/// The bytes [offset, offset + size) of a file in memory; size > 0. The map outlives the InputFile
/// if need be.
class FileMap {
 public:
  FileMap(const InputFile& file, std::uint64_t offset, std::uint64_t size);
  ~FileMap();
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;

  const std::byte* data() const noexcept { return base_ + lead_; }
  /// Gives the resident pages back; the next access reads them again.
  void drop_pages() const;

 private:
  std::byte* base_ = nullptr;
  std::size_t lead_ = 0;
  std::size_t length_ = 0;
};

}  // namespace lorapp::detail
