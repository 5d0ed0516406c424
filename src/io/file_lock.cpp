#include "io/file_lock.hpp"

#include <lorapp/error.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <system_error>
#include <thread>

namespace lorapp::detail {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "lock";
constexpr std::chrono::milliseconds kPoll{100};
constexpr mode_t kMode = 0664;

int open_lock_file(const fs::path& path) {
  constexpr int kFlags = O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
  int fd = ::open(path.c_str(), kFlags | O_EXCL, kMode);
  if (fd >= 0) {
    ::fchmod(fd, kMode);  // whatever the umask is: other users of the cache wait for it too
    return fd;
  }
  if (errno == EEXIST) fd = ::open(path.c_str(), kFlags, kMode);
  LORAPP_CHECK(fd >= 0, kOp, path.string(),
               ": cannot be opened: ", std::generic_category().message(errno));
  return fd;
}

/// Whether the open file is still the one of that name: another process may have removed it.
bool is_current(int fd, const fs::path& path) {
  struct stat open_file = {};
  struct stat named_file = {};
  return ::fstat(fd, &open_file) == 0 && ::stat(path.c_str(), &named_file) == 0 &&
         open_file.st_ino == named_file.st_ino && open_file.st_dev == named_file.st_dev;
}

}  // namespace

FileLock::FileLock(const fs::path& path, const std::function<void()>& wait) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  LORAPP_CHECK(!error, kOp, path.parent_path().string(), ": cannot be made: ", error.message());
  while (true) {
    fd_ = open_lock_file(path);
    if (::flock(fd_, LOCK_EX | LOCK_NB) == 0) {
      held_ = is_current(fd_, path);
      if (held_) return;
    } else if (errno != EWOULDBLOCK && errno != EACCES && errno != EINTR) {
      return;  // ENOSYS, ENOLCK, EOPNOTSUPP: this file system has none
    }
    ::close(fd_);
    fd_ = -1;
    wait();
    std::this_thread::sleep_for(kPoll);
  }
}

FileLock::~FileLock() {
  if (fd_ >= 0) ::close(fd_);  // which releases it
}

}  // namespace lorapp::detail
