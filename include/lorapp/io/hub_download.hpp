// Models fetched from the Hugging Face hub into the cache that its own tools keep, in their layout.
// A connection is opened by download_snapshot() alone, and never where hub_is_offline().
#pragma once

#include <lorapp/export.hpp>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace lorapp {

/// How far a download is; sizes in bytes. What the cache already holds counts as done.
struct HubProgress {
  std::string file{};  ///< the one that is being fetched
  std::int64_t file_done = 0;
  std::int64_t file_size = 0;
  std::int64_t done = 0;  ///< of all files that are missing from the snapshot
  std::int64_t total = 0;
};

struct HubDownloadOptions {
  /// Which files of the repository to take: shell patterns, of which `*` and `?` match no slash.
  /// Empty means default_hub_patterns(), and then a repository whose only weights are pickled
  /// (pytorch_model.bin) is an error.
  std::vector<std::string> patterns{};
  std::filesystem::path cache_dir{};  ///< empty: as resolve_model_folder() finds it
  std::string endpoint{};             ///< empty: $HF_ENDPOINT, else https://huggingface.co
  /// Absent: $HF_TOKEN, else the token file of "hf auth login"; empty: none.
  std::optional<std::string> token{};
  int retries = 5;        ///< of one request, after failures that may pass
  double retry_wait = 1;  ///< seconds before the first; each further wait is twice as long, to 8
  double timeout = 10;    ///< seconds to connect, and of silence in a transfer
  std::function<void(const HubProgress&)> on_progress{};  ///< called with every piece that arrives
  const std::atomic<bool>* stop = nullptr;  ///< ends the download soon after it turns true
};

/// What download_snapshot() left in the cache.
struct HubSnapshot {
  std::filesystem::path folder;    ///< <cache>/models--owner--name/snapshots/<commit>
  std::string commit;              ///< 40 hexadecimal digits
  std::vector<std::string> files;  ///< those that were asked for, sorted
  std::int64_t bytes = 0;          ///< received by this call
};

/// Configuration, tokenizer, safetensors with their index, adapters in safetensors, all at the top
/// of the repository: what lorapp reads. Pickled files, GGUF and other copies of the weights are
/// left out.
LORAPP_API std::vector<std::string> default_hub_patterns();

/// Whether this lorapp was built with libcurl (the CMake option LORAPP_HUB).
LORAPP_API bool hub_download_available();

/// Fetches the files of a model that the cache lacks, and returns its snapshot. `revision` is a
/// branch, a tag or a commit.
///
/// Each file goes to blobs/<etag>.incomplete, where a later call, also of another process, goes on;
/// it gets its name once its size is that of the hub and its content has the checksum that is its
/// etag (SHA-256, or git's SHA-1 of a blob). Then come the links of the snapshot, config.json last,
/// and refs/<revision> at the very end, so a snapshot that can be found is whole. Locks in .locks
/// keep out other processes, huggingface_hub's too.
///
/// The token is sent to the endpoint alone, never to a server that it redirects to. Throws Error
/// that says what the hub refused and why (not found, private, gated, no such revision), what
/// failed after all retries, or that it was stopped; what was received stays for the next call.
LORAPP_API HubSnapshot download_snapshot(const std::string& repo_id,
                                         const std::string& revision = "main",
                                         const HubDownloadOptions& options = {});

}  // namespace lorapp
