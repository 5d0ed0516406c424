// POSIX file calls behind atomic_file.hpp.
#include "atomic_file.hpp"

#include <lorapp/error.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <system_error>
#include <utility>

namespace lorapp::detail {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "write";
constexpr int kNameAttempts = 100;

std::string reason(int error) { return std::generic_category().message(error); }

// Not random in any sense that matters: O_EXCL and mkdir decide who owns a name.
std::string temporary_suffix() {
  static std::atomic<std::uint64_t> counter{0};
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyz";
  auto mixed =
      static_cast<std::uint64_t>(::getpid()) * 0x9E3779B97F4A7C15u ^
      static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count()) ^
      (counter.fetch_add(1) * 0xBF58476D1CE4E5B9u);
  mixed ^= mixed >> 29;
  mixed *= 0x94D049BB133111EBu;
  std::string suffix = ".tmp-";
  for (int i = 0; i < 6; ++i, mixed /= kLetters.size()) suffix += kLetters[mixed % kLetters.size()];
  return suffix;
}

fs::path with_suffix(const fs::path& target, const std::string& suffix) {
  fs::path named = target;
  named += suffix;
  return named;
}

// "a/b/" names the folder "a/b": a suffix must not land inside it.
fs::path without_trailing_slash(fs::path path) {
  return path.has_filename() ? path : path.parent_path();
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// A rename survives a power cut only once its folder is on the disk. Some file systems refuse to
// flush a folder; the rename has then happened all the same, so that is no error.
void flush_folder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  ::fsync(fd);
  ::close(fd);
}

void flush_file(const fs::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  LORAPP_CHECK(fd >= 0, kOp, file.string(), ": cannot be reopened to flush it: ", reason(errno));
  const int status = ::fsync(fd);
  const int error = errno;
  ::close(fd);
  // EINVAL: a file system without fsync.
  LORAPP_CHECK(status == 0 || error == EINVAL, kOp, file.string(),
               ": cannot be flushed to the disk: ", reason(error));
}

#ifdef RENAME_EXCHANGE
bool exchange(const fs::path& a, const fs::path& b) {
  return ::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0;
}
#else
bool exchange(const fs::path&, const fs::path&) {
  errno = ENOSYS;
  return false;
}
#endif

}  // namespace

AtomicFile::AtomicFile(fs::path target) : target_(std::move(target)) {
  LORAPP_CHECK(target_.has_filename(), kOp, "'", target_.string(), "' is not the name of a file");
  std::error_code ignored;
  LORAPP_CHECK(!fs::is_directory(target_, ignored), kOp, target_.string(),
               ": is a folder; expected the name of a file");
  for (int attempt = 0; attempt < kNameAttempts && fd_ < 0; ++attempt) {
    temporary_ = with_suffix(target_, temporary_suffix());
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && errno != EEXIST) break;
  }
  LORAPP_CHECK(fd_ >= 0, kOp, target_.string(), ": cannot create a file in ",
               folder_of(target_).string(), ": ", reason(errno));
}

AtomicFile::~AtomicFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
}

void AtomicFile::write(const void* data, std::size_t size) {
  LORAPP_CHECK(fd_ >= 0, kOp, target_.string(), ": written to after it was finished");
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(fd_, next, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail(kOp, target_.string() + ": cannot be written: " + reason(errno) +
                    " (nothing is left behind, and a file of that name is as it was)");
    }
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  LORAPP_CHECK(fd_ >= 0, kOp, target_.string(), ": finished twice");
  const int fd = std::exchange(fd_, -1);
  const bool flushed = ::fsync(fd) == 0 || errno == EINVAL;
  const int flush_error = errno;
  const bool closed = ::close(fd) == 0 || errno == EINTR;
  LORAPP_CHECK(flushed, kOp, target_.string(),
               ": cannot be flushed to the disk: ", reason(flush_error));
  LORAPP_CHECK(closed, kOp, target_.string(), ": cannot be finished: ", reason(errno));
  LORAPP_CHECK(::rename(temporary_.c_str(), target_.c_str()) == 0, kOp, target_.string(),
               ": cannot be given its name: ", reason(errno));
  temporary_.clear();
  flush_folder(folder_of(target_));
}

void write_file_atomically(const fs::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.write(bytes);
  file.commit();
}

AtomicDirectory::AtomicDirectory(fs::path target, Existing existing)
    : target_(without_trailing_slash(std::move(target))), existing_(existing) {
  LORAPP_CHECK(target_.has_filename() && target_.filename() != "." && target_.filename() != "..",
               kOp, "'", target_.string(), "' is not the name of a folder");
  std::error_code error;
  if (fs::exists(target_, error)) {
    LORAPP_CHECK(fs::is_directory(target_, error), kOp, target_.string(),
                 ": is not a folder; expected a folder or nothing");
    LORAPP_CHECK(existing_ == Existing::replace || fs::is_empty(target_, error), kOp,
                 target_.string(), ": the folder is not empty");
  }
  fs::create_directories(folder_of(target_), error);
  LORAPP_CHECK(!error, kOp, folder_of(target_).string(), ": cannot be created: ", error.message());
  int status = -1;
  for (int attempt = 0; attempt < kNameAttempts && status != 0; ++attempt) {
    temporary_ = with_suffix(target_, temporary_suffix());
    status = ::mkdir(temporary_.c_str(), 0777);
    if (status != 0 && errno != EEXIST) break;
  }
  if (status != 0) {
    const int mkdir_error = errno;
    temporary_.clear();
    fail(kOp, target_.string() + ": cannot create a folder in " + folder_of(target_).string() +
                  ": " + reason(mkdir_error));
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code ignored;
  if (!temporary_.empty()) fs::remove_all(temporary_, ignored);
}

void AtomicDirectory::commit() {
  LORAPP_CHECK(!temporary_.empty(), kOp, target_.string(), ": finished twice");
  std::error_code walk_error, ignored;
  for (auto entry = fs::recursive_directory_iterator(temporary_, walk_error);
       !walk_error && entry != fs::recursive_directory_iterator(); entry.increment(walk_error)) {
    if (entry->is_directory(ignored)) {
      flush_folder(entry->path());
    } else if (entry->is_regular_file(ignored)) {
      flush_file(entry->path());
    }
  }
  LORAPP_CHECK(!walk_error, kOp, target_.string(), ": cannot be finished: ", temporary_.string(),
               " cannot be read: ", walk_error.message());
  flush_folder(temporary_);

  // rename() itself replaces an empty folder, and only that.
  if (::rename(temporary_.c_str(), target_.c_str()) == 0) {
    temporary_.clear();
    flush_folder(folder_of(target_));
    return;
  }
  LORAPP_CHECK((errno == ENOTEMPTY || errno == EEXIST) && existing_ == Existing::replace, kOp,
               target_.string(), ": cannot be given its name: ", reason(errno));
  if (!exchange(temporary_, target_)) {
    // A file system that cannot exchange: the old folder steps aside, and comes back on failure.
    const fs::path aside = with_suffix(target_, ".old" + temporary_suffix());
    LORAPP_CHECK(::rename(target_.c_str(), aside.c_str()) == 0, kOp, target_.string(),
                 ": cannot be replaced: ", reason(errno));
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
      const int error = errno;
      if (::rename(aside.c_str(), target_.c_str()) != 0) {
        fail(kOp, target_.string() + ": cannot be replaced: " + reason(error) +
                      "; its old content is now in " + aside.string());
      }
      fail(kOp, target_.string() + ": cannot be replaced: " + reason(error));
    }
    temporary_ = aside;
  }
  flush_folder(folder_of(target_));
  // What temporary_ names now is the replaced folder.
  std::error_code error;
  fs::remove_all(temporary_, error);
  const std::string left = temporary_.string();
  temporary_.clear();
  LORAPP_CHECK(!error, kOp, target_.string(), ": is in place, but the folder it replaced (", left,
               ") cannot be removed: ", error.message());
}

}  // namespace lorapp::detail
