// Models by their name on the Hugging Face hub: looked up in the local cache, else fetched.
#pragma once

#include <lorapp/io/hub_download.hpp>

#include <chrono>
#include <filesystem>
#include <ostream>
#include <string>
#include <vector>

namespace lorapp::program {

/// The progress of a download: a bar on a terminal, elsewhere a line for each file.
class DownloadProgress {
 public:
  DownloadProgress(std::ostream& out, bool is_terminal) : out_(out), is_terminal_(is_terminal) {}
  /// What is printed next begins a line.
  ~DownloadProgress();
  DownloadProgress(const DownloadProgress&) = delete;
  DownloadProgress& operator=(const DownloadProgress&) = delete;

  void show(const HubProgress& progress);

 private:
  using Clock = std::chrono::steady_clock;

  std::ostream& out_;
  bool is_terminal_;
  bool bar_is_open_ = false;
  std::string file_;
  std::int64_t first_done_ = 0;
  Clock::time_point begin_;
  Clock::time_point drawn_;
};

/// What a subcommand needs of a model.
struct ModelNeeds {
  /// It is there if its folder holds one of these; the first is the one an error names.
  std::vector<std::string> any_of = {"config.json"};
  bool weights = true;
  /// What to fetch where it is not there; empty: default_hub_patterns().
  std::vector<std::string> patterns{};
};

/// The folder of `model`, a folder or a hub id with or without @revision. One that the local cache
/// has not, or not whole, is downloaded if this lorapp can and HF_HUB_OFFLINE allows it.
std::filesystem::path model_folder(const std::string& model, const ModelNeeds& needs, bool quiet);

}  // namespace lorapp::program
