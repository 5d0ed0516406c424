// Snapshots in the layout of huggingface_hub: blobs, links to them, refs.
#include <lorapp/io/hub_download.hpp>

#include "atomic_file.hpp"
#include "hub_cache.hpp"
#include "io/hub_blob.hpp"
#include "io/hub_client.hpp"
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <fnmatch.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>
#include <utility>

namespace lorapp {

namespace fs = std::filesystem;

namespace {

using detail::HubClient;
using detail::HubFile;
using detail::HubListing;

constexpr const char* kOp = "hub";

bool matches(const std::string& name, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& pattern) {
    return ::fnmatch(pattern.c_str(), name.c_str(), FNM_PATHNAME) == 0;
  });
}

/// The files of the repository that are wanted.
std::vector<std::string> wanted_files(const std::string& repo_id,
                                      const HubListing& listing,
                                      const HubDownloadOptions& options) {
  const bool by_default = options.patterns.empty();
  const std::vector<std::string> patterns = by_default ? default_hub_patterns() : options.patterns;
  std::vector<std::string> wanted;
  for (const std::string& name : listing.files) {
    if (matches(name, patterns)) wanted.push_back(name);
  }
  std::string asked;
  for (const std::string& pattern : patterns) asked += (asked.empty() ? "" : ", ") + pattern;
  LORAPP_CHECK(!wanted.empty(), kOp, repo_id, ": none of its ", listing.files.size(),
               " files is wanted (", asked, ")");
  const auto any = [](const std::vector<std::string>& names, const char* pattern) {
    return std::ranges::any_of(names, [&](const auto& name) { return matches(name, {pattern}); });
  };
  LORAPP_CHECK(
      !by_default || any(wanted, "*.safetensors") || !any(listing.files, "pytorch_model*.bin"), kOp,
      repo_id,
      ": its weights are pickled (pytorch_model.bin), which can run code and is not read; "
      "expected safetensors. The hub converts models: look for a revision refs/pr/N with "
      "model.safetensors");
  return wanted;
}

/// Writes one repository's folder of the cache.
class SnapshotWriter {
 public:
  SnapshotWriter(const fs::path& cache, const std::string& repo_id, std::string commit)
      : commit_(std::move(commit)) {
    const fs::path name = detail::hub_repository("models", repo_id).filename();
    repository_ = cache / name;
    locks_ = cache / ".locks" / name;
  }

  fs::path folder() const { return repository_ / "snapshots" / commit_; }
  fs::path blob(const HubFile& file) const { return repository_ / "blobs" / file.etag; }
  fs::path lock(const HubFile& file) const { return locks_ / (file.etag + ".lock"); }
  bool has(const std::string& file) const {
    return detail::file_size_or_none(folder() / file) >= 0;
  }

  /// Bytes that are still to come.
  std::int64_t missing_bytes(const HubFile& file) const {
    if (detail::file_size_or_none(blob(file)) == file.size) return 0;
    fs::path part = blob(file);
    part += ".incomplete";
    const std::int64_t there = std::max<std::int64_t>(0, detail::file_size_or_none(part));
    return there <= file.size ? file.size - there : file.size;
  }

  void make_folders() const {
    make_folder(repository_ / "blobs");
    make_folder(repository_ / "snapshots");
  }

  void check_space(std::int64_t needed) const {
    std::error_code error;
    const fs::space_info space = fs::space(repository_, error);
    LORAPP_CHECK(needed < std::int64_t{1} << 60, kOp, "the files have no size that can be");
    if (error) return;  // not every file system says
    constexpr double kMegabyte = 1e6;
    LORAPP_CHECK(static_cast<double>(needed) <= static_cast<double>(space.available), kOp,
                 repository_.string(), ": the files need ",
                 static_cast<std::int64_t>(static_cast<double>(needed) / kMegabyte) + 1,
                 " MB, and ",
                 static_cast<std::int64_t>(static_cast<double>(space.available) / kMegabyte),
                 " MB are free there");
  }

  /// The snapshot's name for a blob: a relative link, so that the cache can be moved.
  void link(const HubFile& file) const {
    const fs::path name = folder() / file.name;
    make_folder(name.parent_path());
    const fs::path target = blob(file).lexically_relative(name.parent_path());
    fs::path temporary = name;
    temporary += ".tmp-" + std::to_string(::getpid());
    ::unlink(temporary.c_str());
    if (::symlink(target.c_str(), temporary.c_str()) == 0) {
      rename(temporary, name);
    } else if (errno == EPERM || errno == ENOTSUP || errno == ENOSYS) {
      rename(blob(file), name);  // a file system without links: as huggingface_hub does there
    } else {
      detail::fail(kOp, name.string() +
                            ": the link cannot be made: " + std::generic_category().message(errno));
    }
  }

  /// refs/<revision>, unless the revision is the commit itself or the file says so already.
  void write_ref(const std::string& revision) const {
    if (revision == commit_) return;
    const fs::path ref = repository_ / "refs" / revision;
    std::error_code error;
    if (fs::is_regular_file(ref, error) && detail::read_text_file(ref, kOp, 4096) == commit_) {
      return;
    }
    make_folder(ref.parent_path());
    detail::write_file_atomically(ref, commit_);
  }

 private:
  static void make_folder(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    LORAPP_CHECK(!error, kOp, folder.string(), ": cannot be made: ", error.message());
  }

  static void rename(const fs::path& from, const fs::path& to) {
    LORAPP_CHECK(::rename(from.c_str(), to.c_str()) == 0, kOp, to.string(),
                 ": cannot be given its name: ", std::generic_category().message(errno));
  }

  std::string commit_;
  fs::path repository_;
  fs::path locks_;
};

/// Fetches the blobs of `files`; returns the bytes received.
std::int64_t fetch_blobs(HubClient& client,
                         const SnapshotWriter& writer,
                         const std::string& commit,
                         const std::vector<HubFile>& files,
                         const HubDownloadOptions& options) {
  HubProgress progress;
  for (const HubFile& file : files) progress.total += file.size;
  std::int64_t received = 0;
  std::int64_t before = 0;  // bytes of the files that are done
  for (const HubFile& file : files) {
    const auto report = [&](std::int64_t there) {
      progress.file = file.name;
      progress.file_done = there;
      progress.file_size = file.size;
      progress.done = before + there;
      if (options.on_progress) options.on_progress(progress);
    };
    received +=
        detail::download_blob(client, commit, file, writer.blob(file), writer.lock(file), report);
    before += file.size;
  }
  return received;
}

}  // namespace

bool hub_download_available() { return true; }

HubSnapshot download_snapshot(const std::string& repo_id,
                              const std::string& revision,
                              const HubDownloadOptions& options) {
  LORAPP_CHECK(detail::is_hub_id(repo_id), kOp, detail::in_quotes(repo_id),
               " is no model of the hub; expected owner/name");
  LORAPP_CHECK(detail::is_hub_revision(revision), kOp, detail::in_quotes(revision),
               " is no revision; expected a branch, a tag or a commit");
  LORAPP_CHECK(!hub_is_offline(), kOp, repo_id,
               ": cannot be downloaded, because HF_HUB_OFFLINE forbids connections");
  HubClient client(options, repo_id, revision);
  const HubListing listing = client.list();
  HubSnapshot snapshot{.folder = {}, .commit = listing.commit, .files = {}, .bytes = 0};
  snapshot.files = wanted_files(repo_id, listing, options);
  const fs::path cache = options.cache_dir.empty() ? detail::hub_cache() : options.cache_dir;
  const SnapshotWriter writer(fs::absolute(cache), repo_id, listing.commit);
  snapshot.folder = writer.folder();

  std::vector<HubFile> missing;
  std::int64_t needed = 0;
  writer.make_folders();
  for (const std::string& name : snapshot.files) {
    if (writer.has(name)) continue;
    missing.push_back(client.inspect(listing.commit, name));
    needed += writer.missing_bytes(missing.back());
    writer.check_space(needed);
  }
  // What look-ups go by comes last.
  std::stable_partition(missing.begin(), missing.end(),
                        [](const auto& file) { return file.name != "config.json"; });
  if (!missing.empty()) {
    snapshot.bytes = fetch_blobs(client, writer, listing.commit, missing, options);
    for (const HubFile& file : missing) writer.link(file);
  }
  writer.write_ref(revision);
  return snapshot;
}

}  // namespace lorapp
