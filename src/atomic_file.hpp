// Files and folders that appear whole or not at all: written under a temporary name beside the
// target, then renamed. The temporary name is "<target>.tmp-XXXXXX"; until commit() the target is
// untouched, and a destructor removes what is unfinished.
#pragma once

#include <lorapp/export.hpp>

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace lorapp::detail {

/// A file under construction. Every failed system call (a full disk, a missing folder) is an Error
/// that names the target.
class LORAPP_API AtomicFile {
 public:
  /// Creates the temporary file, with the permissions that a new file gets. `target`'s folder must
  /// exist.
  explicit AtomicFile(std::filesystem::path target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Flushes to the disk and renames over the target (replacing a file of that name). Nothing may
  /// be written after it.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
};

/// Writes `bytes` as the whole content of `path`, or leaves what was there.
LORAPP_API void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

/// A folder under construction: fill path(), then commit().
class LORAPP_API AtomicDirectory {
 public:
  /// What commit() does where the target exists: an empty folder is always replaced, anything else
  /// only with `replace`.
  enum class Existing { refuse, replace };

  /// Creates the temporary folder beside `target` (and the folders above it).
  explicit AtomicDirectory(std::filesystem::path target, Existing existing = Existing::refuse);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;

  /// The folder to write into; it becomes the target.
  const std::filesystem::path& path() const noexcept { return temporary_; }

  /// Flushes every file in it to the disk and gives it its name. A folder that it replaces is
  /// exchanged in one step, then removed.
  void commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  Existing existing_;
};

}  // namespace lorapp::detail
