// AlignedText: runs of bytes and their origins.
#include "data/aligned_text.hpp"

#include <algorithm>

namespace lorapp::detail {

AlignedText AlignedText::view(std::string_view text, std::size_t origin, bool track) {
  AlignedText result(track);
  result.is_view_ = true;
  result.view_ = text;
  result.view_origin_ = origin;
  return result;
}

const AlignedText::Run& AlignedText::run_of(std::size_t at) const {
  const auto behind =
      std::upper_bound(runs_.begin(), runs_.end(), at,
                       [](std::size_t position, const Run& run) { return position < run.at; });
  return *(behind - 1);
}

void AlignedText::append_unit(std::string_view bytes, Span origin) {
  if (bytes.empty()) return;
  if (track_) runs_.push_back({.at = storage_.size(), .origin = origin, .linear = false});
  storage_ += bytes;
}

void AlignedText::append_copy(const AlignedText& from, std::size_t begin, std::size_t end) {
  if (begin >= end) return;
  const std::size_t start = storage_.size();
  storage_ += from.text().substr(begin, end - begin);
  if (!track_) return;
  const auto add_linear = [&](std::size_t at, std::size_t first, std::size_t length) {
    const bool goes_on =
        !runs_.empty() && runs_.back().linear && runs_.back().origin.second == first;
    if (goes_on) {
      runs_.back().origin.second += length;
    } else {
      runs_.push_back({.at = at, .origin = {first, first + length}, .linear = true});
    }
  };
  if (from.is_view_) {
    add_linear(start, from.view_origin_ + begin, end - begin);
    return;
  }
  for (const Run* run = &from.run_of(begin); run != from.runs_.data() + from.runs_.size(); ++run) {
    if (run->at >= end) break;
    const std::size_t first = std::max(run->at, begin);
    const bool is_last = run + 1 == from.runs_.data() + from.runs_.size();
    const std::size_t last = std::min(is_last ? from.storage_.size() : (run + 1)->at, end);
    const std::size_t at = start + first - begin;
    if (run->linear) {
      add_linear(at, run->origin.first + first - run->at, last - first);
    } else {
      runs_.push_back({.at = at, .origin = run->origin, .linear = false});
    }
  }
}

AlignedText::Span AlignedText::origin(std::size_t begin, std::size_t end) const {
  if (is_view_) return {view_origin_ + begin, view_origin_ + end};
  const Run& first = run_of(begin);
  const Run& last = run_of(end - 1);
  return {first.linear ? first.origin.first + begin - first.at : first.origin.first,
          last.linear ? last.origin.first + end - last.at : last.origin.second};
}

std::size_t AlignedText::origin_at(std::size_t at) const {
  if (is_view_) return view_origin_ + at;
  if (storage_.empty()) return 0;
  return at < storage_.size() ? origin(at, at + 1).first : origin(at - 1, at).second;
}

AlignedText AlignedText::slice(std::size_t begin, std::size_t end) const {
  if (is_view_) return view(view_.substr(begin, end - begin), view_origin_ + begin, track_);
  AlignedText result(track_);
  result.append_copy(*this, begin, end);
  return result;
}

}  // namespace lorapp::detail
