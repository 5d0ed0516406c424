// A lock between processes on a file, the same that the Python package filelock takes (flock).
#pragma once

#include <lorapp/export.hpp>

#include <filesystem>
#include <functional>

namespace lorapp::detail {

/// Holds an exclusive flock(2) from the constructor to the destructor. The file stays: removing it
/// would let two waiters lock two files of one name.
class LORAPP_API FileLock {
 public:
  /// Creates the file (mode 0664, as huggingface_hub does) and the folders above it, and waits for
  /// the lock. `wait` is called about ten times a second meanwhile, and may throw to give up.
  /// Throws Error where the file cannot be made.
  FileLock(const std::filesystem::path& path, const std::function<void()>& wait);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

  /// False on a file system that has no locks, where nothing keeps others out.
  bool held() const noexcept { return held_; }

 private:
  int fd_ = -1;
  bool held_ = false;
};

}  // namespace lorapp::detail
