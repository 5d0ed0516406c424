// open, pread, mmap.
#include "io/file_map.hpp"

#include <lorapp/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

namespace lorapp::detail {

namespace {
std::string reason(int error) { return std::generic_category().message(error); }
}  // namespace

InputFile::InputFile(std::filesystem::path path, std::string op)
    : path_(std::move(path)), op_(std::move(op)) {
  // O_NONBLOCK: opening a pipe must not wait for a writer.
  fd_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  LORAPP_CHECK(fd_ >= 0, op_, path_.string(), ": cannot be opened: ", reason(errno));
  struct stat status {};
  const bool known = ::fstat(fd_, &status) == 0;
  if (!known || !S_ISREG(status.st_mode)) {
    ::close(std::exchange(fd_, -1));
    fail(op_, path_.string() + ": is not a regular file");
  }
  size_ = static_cast<std::uint64_t>(status.st_size);
}

InputFile::~InputFile() {
  if (fd_ >= 0) ::close(fd_);
}

void InputFile::read(std::uint64_t offset, void* to, std::size_t count) const {
  char* next = static_cast<char*>(to);
  while (count > 0) {
    const ssize_t got = ::pread(fd_, next, count, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    LORAPP_CHECK(got >= 0, op_, path_.string(), ": cannot be read: ", reason(errno));
    LORAPP_CHECK(got > 0, op_, path_.string(), ": ended at byte ", offset, " while it was read");
    next += got;
    offset += static_cast<std::uint64_t>(got);
    count -= static_cast<std::size_t>(got);
  }
}

void InputFile::check_unchanged() const {
  struct stat status {};
  LORAPP_CHECK(::fstat(fd_, &status) == 0, op_, path_.string(), ": ", reason(errno));
  LORAPP_CHECK(static_cast<std::uint64_t>(status.st_size) == size_, op_, path_.string(), ": had ",
               size_, " bytes when it was opened and has ", status.st_size,
               " now: it was changed while in use");
}

FileMap::FileMap(const InputFile& file, std::uint64_t offset, std::uint64_t size) {
  file.check_unchanged();
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  lead_ = offset % page;
  length_ = lead_ + size;
  void* base = ::mmap(nullptr, length_, PROT_READ, MAP_PRIVATE, file.descriptor(),
                      static_cast<off_t>(offset - lead_));
  LORAPP_CHECK(base != MAP_FAILED, file.op(), file.path().string(), ": ", size,
               " bytes cannot be mapped: ", reason(errno));
  base_ = static_cast<std::byte*>(base);
}

FileMap::~FileMap() { ::munmap(base_, length_); }

void FileMap::drop_pages() const {
  // Private pages of a read-only map are never changed, so dropping them loses nothing.
  ::madvise(base_, length_, MADV_DONTNEED);
}

}  // namespace lorapp::detail
