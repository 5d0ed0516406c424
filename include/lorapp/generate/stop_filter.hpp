// StopFilter: text that arrives in pieces, ended where a stop string first appears.
// Convention: what push() has returned is final; a piece that may begin a stop string is held back.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

/// Passes a text on up to the first of some stop strings, which may lie across pieces.
class StopFilter {
 public:
  explicit StopFilter(std::vector<std::string> stop_strings) : stops_(std::move(stop_strings)) {}

  /// Takes the next piece; returns the text that is now certain to lie before any stop string.
  std::string push(std::string_view piece) {
    if (stopped_) return {};
    held_ += piece;
    std::size_t keep_from = held_.size();
    for (const std::string& stop : stops_) {
      const std::size_t found = held_.find(stop);
      if (found != std::string::npos && (!stopped_ || found < keep_from)) {
        keep_from = found;
        stopped_ = true;
      }
    }
    if (!stopped_) keep_from -= longest_open_match();
    std::string certain = held_.substr(0, keep_from);
    held_.erase(0, keep_from);
    return certain;
  }

  /// True once a stop string has appeared.
  bool stopped() const { return stopped_; }

  /// The text held back, when no piece follows.
  std::string finish() { return stopped_ ? std::string{} : std::exchange(held_, {}); }

 private:
  /// Length of the longest end of held_ that a stop string begins with.
  std::size_t longest_open_match() const {
    std::size_t longest = 0;
    for (const std::string& stop : stops_) {
      for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > longest; --n) {
        if (held_.ends_with(std::string_view(stop).substr(0, n))) longest = n;
      }
    }
    return longest;
  }

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace lorapp
