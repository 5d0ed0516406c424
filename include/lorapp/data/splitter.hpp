// Splitter: one pre-tokenizer step, which cuts a text into pieces at the matches of a pattern.
#pragma once

#include <lorapp/data/byte_level.hpp>
#include <lorapp/data/character_set.hpp>
#include <lorapp/data/regex.hpp>
#include <lorapp/data/split_pattern.hpp>
#include <lorapp/error.hpp>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lorapp::detail {

/// What becomes of matches, as the Python package tokenizers names it.
enum class SplitBehavior {
  removed,               ///< they vanish
  isolated,              ///< each is a piece
  merged_with_previous,  ///< each belongs to the piece before
  merged_with_next,      ///< each belongs to the piece behind
  contiguous,            ///< those that touch are one piece
};

struct SplitOptions {
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  ///< what lies between matches counts as match, and the other way round
  /// The pattern sees each byte as the character that stands for it in a byte-level vocabulary: a
  /// step behind ByteLevel.
  bool on_bytes = false;
};

class Splitter {
 public:
  /// The hand-written patterns cover all of a text; a single character; a text; an expression.
  using Pattern =
      std::variant<SplitPattern, std::shared_ptr<const CharacterSet>, std::string, Regex>;

  explicit Splitter(Pattern pattern, SplitOptions options = {})
      : pattern_(std::move(pattern)), options_(options) {}

  /// Calls `piece(begin, end)` for the pieces of text[begin, end), none of them empty.
  template <class Piece>
  void split(std::string_view text, std::size_t begin, std::size_t end, const Piece& piece) const {
    if (const auto* known = std::get_if<SplitPattern>(&pattern_); known && !options_.on_bytes) {
      // A known pattern looks no further back than where a piece begins.
      const std::string_view part = text.substr(0, end);
      for (std::size_t at = begin; at < end;) {
        const std::size_t next = piece_end(*known, part, at);
        piece(at, next);
        at = next;
      }
      return;
    }
    if (options_.on_bytes) {
      std::vector<std::size_t> places;  // of the written form, in bytes of the text
      std::string written;
      for (std::size_t at = begin; at < end; ++at) {
        append_utf8(byte_level_character(static_cast<unsigned char>(text[at])), written);
        places.resize(written.size(), at);
      }
      places.push_back(end);
      for (const Part& part : pieces_of(written)) piece(places[part.begin], places[part.end]);
      return;
    }
    for (const Part& part : pieces_of(text.substr(begin, end - begin)))
      piece(begin + part.begin, begin + part.end);
  }

 private:
  struct Part {
    std::size_t begin = 0, end = 0;
    bool match = false;
  };

  // Matches and what lies between them.
  std::vector<Part> parts_of(std::string_view text) const {
    std::vector<Part> parts;
    std::size_t done = 0;
    const auto add = [&](std::size_t begin, std::size_t end) {
      if (begin > done) parts.push_back({done, begin, options_.invert});
      if (end > begin) parts.push_back({begin, end, !options_.invert});
      done = end;
    };
    if (const auto* known = std::get_if<SplitPattern>(&pattern_)) {
      while (done < text.size()) add(done, piece_end(*known, text, done));
    } else if (const auto* set = std::get_if<std::shared_ptr<const CharacterSet>>(&pattern_)) {
      for (std::size_t at = 0; at < text.size();) {
        const Utf8Step step = utf8_step(text, at);
        if ((*set)->contains(step.code)) add(at, at + step.length);
        at += step.length;
      }
    } else if (const auto* literal = std::get_if<std::string>(&pattern_)) {
      for (std::size_t at = text.find(*literal); at != std::string_view::npos;
           at = text.find(*literal, at + literal->size()))
        add(at, at + literal->size());
    } else {
      Regex::Search search(*std::get_if<Regex>(&pattern_), text);
      for (auto match = search.next(0); match; match = search.next(match->end))
        add(match->begin, match->end);
    }
    add(text.size(), text.size());
    return parts;
  }

  std::vector<Part> pieces_of(std::string_view text) const {
    std::vector<Part> parts = parts_of(text);
    std::vector<Part> pieces;
    pieces.reserve(parts.size());
    switch (options_.behavior) {
      case SplitBehavior::isolated:
        return parts;
      case SplitBehavior::removed:
        std::erase_if(parts, [](const Part& part) { return part.match; });
        return parts;
      case SplitBehavior::contiguous:
        for (const Part& part : parts) {
          if (!pieces.empty() && pieces.back().match == part.match) {
            pieces.back().end = part.end;
          } else {
            pieces.push_back(part);
          }
        }
        return pieces;
      case SplitBehavior::merged_with_previous:
        for (std::size_t i = 0; i < parts.size(); ++i) {
          if (i > 0 && parts[i].match && !parts[i - 1].match) {
            pieces.back().end = parts[i].end;
          } else {
            pieces.push_back(parts[i]);
          }
        }
        return pieces;
      case SplitBehavior::merged_with_next:
        for (std::size_t i = 0; i < parts.size(); ++i) {
          if (i > 0 && !parts[i].match && parts[i - 1].match) {
            pieces.back().end = parts[i].end;
          } else {
            pieces.push_back(parts[i]);
          }
        }
        return pieces;
    }
    return parts;
  }

  Pattern pattern_;
  SplitOptions options_;
};

}  // namespace lorapp::detail
