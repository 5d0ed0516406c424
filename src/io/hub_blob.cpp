#include "io/hub_blob.hpp"

#include "io/file_lock.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace lorapp::detail {

namespace fs = std::filesystem;

namespace {

constexpr const char* kOp = "hub";
/// The attempts begin anew with every such step forward: a large file over a bad line needs many.
constexpr std::int64_t kHeadway = std::int64_t{1} << 20;

std::string reason(int error) { return std::generic_category().message(error); }

bool is_hex(std::string_view text) {
  return std::ranges::all_of(
      text, [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

/// The first byte and the length of the whole that "bytes 5-9/10" names; nothing if it is
/// malformed.
std::optional<std::pair<std::int64_t, std::int64_t>> content_range(const std::string& text) {
  std::int64_t first = 0;
  std::int64_t last = 0;
  std::int64_t whole = 0;
  const char* next = text.data();
  const char* end = next + text.size();
  const auto number = [&](std::string_view before, std::int64_t& value) {
    if (!std::string_view(next, static_cast<std::size_t>(end - next)).starts_with(before)) {
      return false;
    }
    const auto [stop, error] = std::from_chars(next + before.size(), end, value);
    next = stop;
    return error == std::errc{};
  };
  if (!number("bytes ", first) || !number("-", last) || !number("/", whole) || next != end) {
    return {};
  }
  return std::pair(first, whole);
}

/// Bytes of one attempt on their way into the file.
class Intake {
 public:
  Intake(PartialBlob& part, const HubFile& file, const std::function<void(std::int64_t)>& progress)
      : part_(part), file_(file), progress_(progress), offset_(part.size()) {}

  bool take(const HttpResponse& head, std::string_view piece) {
    if (!begun_ && !begin(head)) return false;
    if (static_cast<std::int64_t>(piece.size()) > file_.size - part_.size()) {
      problem_ = "the server sends more than the " + std::to_string(file_.size) +
                 " bytes that the hub promised";
      return false;
    }
    part_.append(piece);
    received_ += static_cast<std::int64_t>(piece.size());
    progress_(part_.size());
    return true;
  }

  std::int64_t received() const { return received_; }
  /// Not empty: what was offered is not this file.
  const std::string& problem() const { return problem_; }
  /// The server answered with another part of the file, or of another file, than was asked for.
  bool wrong_part() const { return wrong_part_; }

 private:
  bool begin(const HttpResponse& head) {
    begun_ = true;
    if (head.status == 206) {
      const auto range = content_range(head.header("content-range"));
      wrong_part_ = offset_ == 0 || !range || *range != std::pair(offset_, file_.size);
      return !wrong_part_;
    }
    const auto offered = head.size_header("content-length");
    if (offered && *offered != file_.size) {
      problem_ = "the server offers " + std::to_string(*offered) + " bytes, but the hub promised " +
                 std::to_string(file_.size);
      return false;
    }
    if (part_.size() > 0) part_.restart();  // the whole comes, whatever part was asked for
    return true;
  }

  PartialBlob& part_;
  const HubFile& file_;
  const std::function<void(std::int64_t)>& progress_;
  std::int64_t offset_;
  std::int64_t received_ = 0;
  bool begun_ = false;
  bool wrong_part_ = false;
  std::string problem_;
};

/// Attempts until the file has its size. Returns the bytes received.
std::int64_t receive(HubClient& client,
                     const std::string& commit,
                     const HubFile& file,
                     PartialBlob& part,
                     const std::function<void(std::int64_t)>& progress) {
  std::int64_t received = 0;
  std::int64_t headway = 0;  // how far it was when the attempts last began anew
  for (int attempt = 0; part.size() != file.size;) {
    if (part.size() > file.size) part.restart();
    progress(part.size());
    Intake intake(part, file, progress);
    HttpResponse response =
        client.fetch(commit, file.name, part.size(),
                     {.url = {}, .sink = [&](const HttpResponse& head, std::string_view piece) {
                        return intake.take(head, piece);
                      }});
    received += intake.received();
    LORAPP_CHECK(intake.problem().empty(), kOp, file.name, ": ", intake.problem());
    if (part.size() == file.size) break;
    const bool unsatisfied = response.failure.empty() && response.status == 416;
    if (intake.wrong_part() || unsatisfied) {
      // This server cannot go on where we are: from the beginning. Only a request with a range is
      // answered like that, so the next failure is of another kind.
      LORAPP_CHECK(part.size() > 0, kOp, file.name, ": the server sent a part (status ",
                   response.status, ") where the whole file was asked for");
      part.restart();
      continue;
    }
    if (part.size() - headway >= kHeadway) {
      headway = part.size();
      attempt = 0;
    }
    if (response.good()) {
      response.failure = "the server sent " + std::to_string(part.size()) + " of " +
                         std::to_string(file.size) + " bytes";
      response.transient = true;
    }
    client.wait_to_retry(attempt, response, file.name);
  }
  progress(part.size());
  return received;
}

}  // namespace

std::int64_t file_size_or_none(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return -1;
  const auto size = fs::file_size(path, error);
  return error ? -1 : static_cast<std::int64_t>(size);
}

BlobChecksum::BlobChecksum(const HubFile& file) : file_(file) { restart(); }

void BlobChecksum::restart() {
  sha_.reset();
  if (!is_hex(file_.etag)) return;
  if (file_.etag.size() == 64) sha_.emplace(Sha::Kind::sha256);
  if (file_.etag.size() == 40) {
    sha_.emplace(Sha::Kind::sha1);
    const std::string header = "blob " + std::to_string(file_.size);
    sha_->update(header.c_str(), header.size() + 1);  // with the zero
  }
}

void BlobChecksum::update(std::string_view piece) {
  if (sha_) sha_->update(piece);
}

bool BlobChecksum::matches() { return !sha_ || sha_->hex_digest() == file_.etag; }

PartialBlob::PartialBlob(const fs::path& blob, const HubFile& file, bool shared)
    : blob_(blob), path_(blob), checksum_(file), shared_(shared) {
  const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
  if (!shared) path_ += "." + std::to_string(::getpid()) + "-" + std::to_string(now);
  path_ += ".incomplete";
  fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  LORAPP_CHECK(fd_ >= 0, kOp, path_.string(), ": cannot be opened: ", reason(errno));
  read_for_checksum();
  if (size_ > file.size) restart();
}

PartialBlob::~PartialBlob() {
  if (fd_ < 0) return;
  ::close(fd_);
  if (!shared_) ::unlink(path_.c_str());
}

void PartialBlob::read_for_checksum() {
  std::vector<char> buffer(std::size_t{1} << 20);
  while (true) {
    const ssize_t count = ::read(fd_, buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    LORAPP_CHECK(count >= 0, kOp, path_.string(), ": cannot be read: ", reason(errno));
    if (count == 0) return;
    checksum_.update({buffer.data(), static_cast<std::size_t>(count)});
    size_ += count;
  }
}

void PartialBlob::append(std::string_view piece) {
  checksum_.update(piece);
  while (!piece.empty()) {
    const ssize_t count = ::write(fd_, piece.data(), piece.size());
    if (count < 0 && errno == EINTR) continue;
    LORAPP_CHECK(count >= 0, kOp, path_.string(), ": cannot be written: ", reason(errno));
    size_ += count;
    piece.remove_prefix(static_cast<std::size_t>(count));
  }
}

void PartialBlob::restart() {
  LORAPP_CHECK(::ftruncate(fd_, 0) == 0 && ::lseek(fd_, 0, SEEK_SET) == 0, kOp, path_.string(),
               ": cannot be emptied: ", reason(errno));
  size_ = 0;
  checksum_.restart();
}

void PartialBlob::discard() {
  ::close(std::exchange(fd_, -1));
  ::unlink(path_.c_str());
}

void PartialBlob::commit() {
  const int fd = std::exchange(fd_, -1);
  const bool flushed = ::fsync(fd) == 0 || errno == EINVAL;  // EINVAL: a file system without it
  const int error = errno;
  ::close(fd);
  LORAPP_CHECK(flushed, kOp, path_.string(), ": cannot be flushed to the disk: ", reason(error));
  LORAPP_CHECK(::rename(path_.c_str(), blob_.c_str()) == 0, kOp, blob_.string(),
               ": cannot be given its name: ", reason(errno));
}

std::int64_t download_blob(HubClient& client,
                           const std::string& commit,
                           const HubFile& file,
                           const fs::path& blob,
                           const fs::path& lock,
                           const std::function<void(std::int64_t)>& progress) {
  const FileLock held(lock, [&] { client.check_stopped(); });
  if (file_size_or_none(blob) == file.size) {  // another process was faster, or another revision
    progress(file.size);
    return 0;
  }
  PartialBlob part(blob, file, held.held());
  bool resumed = part.size() > 0;
  std::int64_t received = 0;
  while (true) {
    received += receive(client, commit, file, part, progress);
    if (part.matches()) break;
    if (!resumed) {
      part.discard();
      fail(kOp, concat(file.name, ": what came has not the checksum that the hub promised, ",
                       file.etag, "; it was removed"));
    }
    // What was there before may have been of another file: once more, all of it.
    part.restart();
    resumed = false;
  }
  part.commit();
  return received;
}

}  // namespace lorapp::detail
