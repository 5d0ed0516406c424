// The bytes of one file of the hub, from the first to the last, through interruptions.
#pragma once

#include "io/hub_client.hpp"
#include "io/sha.hpp"

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

namespace lorapp::detail {

/// The checksum that an etag is: SHA-256 of the content where it has 64 hexadecimal digits, git's
/// SHA-1 of a blob (of "blob <size>", a zero byte and the content) where it has 40. Any other etag,
/// as a mirror may send, is none, and then the size alone is checked.
class BlobChecksum {
 public:
  explicit BlobChecksum(const HubFile& file);

  void restart();
  void update(std::string_view piece);
  /// Throws nothing: whether what came is what the etag says. Nothing may be added after it.
  bool matches();

 private:
  const HubFile& file_;
  std::optional<Sha> sha_{};
};

/// A file under construction, "<blob>.incomplete". What an earlier process left there counts; it is
/// read for the checksum. Without `shared` (no lock keeps others out) it has a name of its own and
/// begins empty.
class PartialBlob {
 public:
  PartialBlob(const std::filesystem::path& blob, const HubFile& file, bool shared);
  /// Leaves the bytes for the next call where it is shared, else removes them.
  ~PartialBlob();
  PartialBlob(const PartialBlob&) = delete;
  PartialBlob& operator=(const PartialBlob&) = delete;

  std::int64_t size() const { return size_; }
  void append(std::string_view piece);
  void restart();
  bool matches() { return checksum_.matches(); }
  /// Removes it: its content is wrong.
  void discard();
  /// Flushes it to the disk and gives it its name.
  void commit();

 private:
  void read_for_checksum();

  std::filesystem::path blob_;
  std::filesystem::path path_;
  BlobChecksum checksum_;
  bool shared_;
  int fd_ = -1;
  std::int64_t size_ = 0;
};

/// Fetches a file into `blob` unless it is there with its size already; returns the bytes received.
/// `lock` is the file of the lock that is held meanwhile, `progress` hears how many bytes are
/// there.
std::int64_t download_blob(HubClient& client,
                           const std::string& commit,
                           const HubFile& file,
                           const std::filesystem::path& blob,
                           const std::filesystem::path& lock,
                           const std::function<void(std::int64_t)>& progress);

/// The size of a regular file; -1 where there is none.
std::int64_t file_size_or_none(const std::filesystem::path& path);

}  // namespace lorapp::detail
