#include "hub.hpp"

#include "console.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/hub_cache.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <optional>
#include <system_error>

#include <unistd.h>

namespace lorapp::program {

namespace fs = std::filesystem;

namespace {

constexpr int kBarWidth = 24;
constexpr double kMegabyte = 1e6;
constexpr std::chrono::milliseconds kBetweenBars{100};

std::string megabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f", bytes / kMegabyte);
  return text;
}

}  // namespace

DownloadProgress::~DownloadProgress() {
  if (bar_is_open_) out_ << '\n' << std::flush;
}

void DownloadProgress::show(const HubProgress& progress) {
  const Clock::time_point now = Clock::now();
  const bool next_file = file_ != progress.file;
  if (file_.empty()) {
    begin_ = now;
    first_done_ = progress.done;
  }
  file_ = progress.file;
  if (!is_terminal_) {
    if (next_file) {
      out_ << "Downloading " + file_ + ", " + megabytes(static_cast<double>(progress.file_size)) +
                  " MB\n"
           << std::flush;
    }
    return;
  }
  if (!next_file && progress.done < progress.total && now - drawn_ < kBetweenBars) return;
  drawn_ = now;
  const double share =
      progress.total > 0 ? static_cast<double>(progress.done) / static_cast<double>(progress.total)
                         : 1;
  const int filled = std::clamp(static_cast<int>(share * kBarWidth), 0, kBarWidth);
  std::string line = "\r\x1b[K";
  for (int i = 0; i < kBarWidth; ++i) line += i < filled ? "█" : "░";
  line += " " + megabytes(static_cast<double>(progress.done)) + " of " +
          megabytes(static_cast<double>(progress.total)) + " MB  ";
  const double seconds = std::chrono::duration<double>(now - begin_).count();
  if (seconds > 1) {
    line += megabytes(static_cast<double>(progress.done - first_done_) / seconds) + " MB/s  ";
  }
  out_ << line + file_ << std::flush;
  bar_is_open_ = true;
}

fs::path model_folder(const std::string& model, const ModelNeeds& needs, bool quiet) {
  std::optional<fs::path> found;
  std::exception_ptr absent;
  for (const std::string& file : needs.any_of) {
    try {
      found = resolve_model_folder(model, file);
      break;
    } catch (const Error&) {
      if (!absent) absent = std::current_exception();
    }
  }
  std::error_code error;
  const bool is_local = fs::exists(model, error);
  if (found && (is_local || !needs.weights || has_all_weights(*found))) return *found;
  const auto name = parse_hub_name(model);
  if (is_local || !name || !hub_download_available() || hub_is_offline()) {
    if (found) return *found;  // whoever reads the weights says what is missing
    std::rethrow_exception(absent);
  }
  const Console console(/*json=*/false, quiet);
  console.say(model + " is not in the local Hugging Face cache" + (found ? " as a whole" : "") +
              "; fetching it");
  DownloadProgress progress(console.progress(), isatty(STDERR_FILENO) == 1);
  HubDownloadOptions options;
  options.patterns = needs.patterns;
  options.on_progress = [&](const HubProgress& state) { progress.show(state); };
  return download_snapshot(name->repo_id, name->revision.empty() ? "main" : name->revision, options)
      .folder;
}

}  // namespace lorapp::program
