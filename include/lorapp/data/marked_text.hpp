// MarkedText: a text that knows which of its bytes came from where. A chat template's literals are
// its own; what it copies out of a message carries that message's number through every operation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

/// Where bytes of a rendered text come from.
struct TextOrigin {
  static constexpr int kTemplate = -1;

  int message = kTemplate;  ///< whose words they are; kTemplate: the template's own
  bool content = false;     ///< of the message's content, not of its role
  bool generation = false;  ///< within a generation block

  bool plain() const { return message == kTemplate && !generation; }
  friend bool operator==(const TextOrigin&, const TextOrigin&) = default;
};

class MarkedText {
 public:
  /// Bytes [begin, end) of one origin. Bytes that lie in no run are the template's own.
  struct Run {
    std::size_t begin = 0;
    std::size_t end = 0;
    TextOrigin origin;

    friend bool operator==(const Run&, const Run&) = default;
  };

  MarkedText() = default;
  explicit MarkedText(std::string text, TextOrigin origin = {}) : text_(std::move(text)) {
    if (!origin.plain() && !text_.empty()) runs_.push_back({0, text_.size(), origin});
  }

  const std::string& text() const { return text_; }
  const std::vector<Run>& runs() const { return runs_; }  ///< in order, without overlap
  std::size_t size() const { return text_.size(); }

  TextOrigin origin_at(std::size_t byte) const {
    const auto run = first_ending_behind(byte);
    return run != runs_.end() && run->begin <= byte ? run->origin : TextOrigin{};
  }

  /// Appends bytes of one origin.
  void append(std::string_view bytes, TextOrigin origin = {}) {
    mark(text_.size(), text_.size() + bytes.size(), origin);
    text_ += bytes;
  }

  /// Appends bytes [begin, end) of another text with their origins.
  void append(const MarkedText& from, std::size_t begin, std::size_t end) {
    if (begin >= end) return;
    const std::size_t shift = text_.size();
    for (auto run = from.first_ending_behind(begin); run != from.runs_.end() && run->begin < end;
         ++run)
      mark(shift + std::max(run->begin, begin) - begin, shift + std::min(run->end, end) - begin,
           run->origin);
    text_.append(from.text_, begin, end - begin);
  }
  void append(const MarkedText& from) { append(from, 0, from.size()); }

  MarkedText slice(std::size_t begin, std::size_t end) const {
    MarkedText result;
    result.append(*this, begin, end);
    return result;
  }

  /// The same text, all of it within a generation block.
  MarkedText as_generation() const {
    MarkedText result;
    result.text_ = text_;
    std::size_t at = 0;
    const auto mark_up_to = [&](std::size_t end, TextOrigin origin) {
      origin.generation = true;
      result.mark(at, end, origin);
      at = end;
    };
    for (const Run& run : runs_) {
      mark_up_to(run.begin, {});
      mark_up_to(run.end, run.origin);
    }
    mark_up_to(text_.size(), {});
    return result;
  }

 private:
  std::vector<Run>::const_iterator first_ending_behind(std::size_t byte) const {
    return std::upper_bound(runs_.begin(), runs_.end(), byte,
                            [](std::size_t at, const Run& run) { return at < run.end; });
  }

  void mark(std::size_t begin, std::size_t end, TextOrigin origin) {
    if (begin == end || origin.plain()) return;
    if (!runs_.empty() && runs_.back().end == begin && runs_.back().origin == origin) {
      runs_.back().end = end;
    } else {
      runs_.push_back({begin, end, origin});
    }
  }

  std::string text_;
  std::vector<Run> runs_;
};

}  // namespace lorapp::detail
