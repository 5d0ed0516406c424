// The regular expressions by which byte-level tokenizers cut a text into pieces, each matched by
// hand. All of them cover a text without gaps, so a cut is where the next match begins. The
// alternatives are tried in the order of the expression; each function below is one of them and
// returns where its match ends, or where it began if there is none.
#pragma once

#include <lorapp/data/unicode.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp::detail {

enum class SplitPattern { gpt2, llama3, qwen2 };

struct KnownSplit {
  SplitPattern pattern;
  std::string_view name;
  std::string_view regex;
};

inline constexpr KnownSplit kKnownSplits[] = {
    {SplitPattern::gpt2, "GPT-2",
     R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitPattern::gpt2, "GPT-2, shorter",
     R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
    {SplitPattern::llama3, "Llama 3",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
    {SplitPattern::qwen2, "Qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
};

/// A text with the classes of its characters.
class PieceMatcher {
 public:
  explicit PieceMatcher(std::string_view text) : text_(text), classes_(character_classes()) {}

  struct Character {
    std::size_t end = 0;
    char32_t code = 0;
    std::uint8_t classes = 0;
    bool there = false;

    bool letter() const { return (classes & kLetter) != 0; }
    bool number() const { return (classes & kNumber) != 0; }
    bool space() const { return (classes & kWhiteSpace) != 0; }
    bool line_end() const { return code == '\r' || code == '\n'; }
    bool other() const { return there && (classes & (kLetter | kNumber | kWhiteSpace)) == 0; }
  };

  static bool is_letter(const Character& c) { return c.letter(); }
  static bool is_number(const Character& c) { return c.number(); }
  static bool is_other(const Character& c) { return c.other(); }
  static bool is_line_end(const Character& c) { return c.line_end(); }

  Character at(std::size_t position) const {
    if (position >= text_.size()) return {.end = position};
    const Utf8Step step = utf8_step(text_, position);
    return {position + step.length, step.code, classes_[step.code], true};
  }

  // The end of the longest run of characters that `belongs` accepts, at most `most` of them.
  template <class Belongs>
  std::size_t run(std::size_t from,
                  const Belongs& belongs,
                  std::size_t most = ~std::size_t{0}) const {
    for (; most > 0; --most) {
      const Character next = at(from);
      if (!next.there || !belongs(next)) break;
      from = next.end;
    }
    return from;
  }

  // 's|'t|'re|'ve|'m|'ll|'d, in any case if `fold`. (U+017F, the long s, folds to s.)
  std::size_t contraction(std::size_t from, bool fold) const {
    if (text_[from] != '\'') return from;
    const auto lower = [&](const Character& c) -> char32_t {
      if (!fold) return c.code;
      if (c.code == 0x17f) return 's';
      return c.code >= 'A' && c.code <= 'Z' ? c.code + ('a' - 'A') : c.code;
    };
    const Character first = at(from + 1);
    const char32_t a = lower(first);
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return first.end;
    if (a != 'r' && a != 'v' && a != 'l') return from;
    const Character second = at(first.end);
    return lower(second) == (a == 'l' ? U'l' : U'e') ? second.end : from;
  }

  // " ?" and one or more of a class.
  template <class Belongs>
  std::size_t with_space(std::size_t from, const Belongs& belongs) const {
    const std::size_t begin = text_[from] == ' ' ? from + 1 : from;
    const std::size_t end = run(begin, belongs);
    return end > begin ? end : from;
  }

  // \s*[\r\n]+: white space up to the last line end in it.
  std::size_t line_ends(std::size_t from) const {
    std::size_t end = from;
    for (Character next = at(from); next.there && next.space(); next = at(next.end)) {
      if (next.line_end()) end = next.end;
    }
    return end;
  }

  // \s+(?!\S)|\s+: white space, but for its last character where something follows it.
  std::size_t white_space(std::size_t from) const {
    std::size_t end = from, before_last = from;
    for (Character next = at(from); next.there && next.space(); next = at(next.end)) {
      before_last = end;
      end = next.end;
    }
    return end < text_.size() && before_last > from ? before_last : end;
  }

 private:
  std::string_view text_;
  const std::uint8_t* classes_;
};

inline std::size_t gpt2_end(const PieceMatcher& text, std::size_t at) {
  std::size_t end = text.contraction(at, false);
  if (end == at) end = text.with_space(at, PieceMatcher::is_letter);
  if (end == at) end = text.with_space(at, PieceMatcher::is_number);
  if (end == at) end = text.with_space(at, PieceMatcher::is_other);
  if (end == at) end = text.white_space(at);
  return end;
}

inline std::size_t llama3_end(const PieceMatcher& text, std::size_t at, std::size_t digits) {
  std::size_t end = text.contraction(at, true);
  if (end > at) return end;
  const PieceMatcher::Character first = text.at(at);
  const bool leads = !first.letter() && !first.number() && !first.line_end();
  const std::size_t begin = leads ? first.end : at;
  end = text.run(begin, PieceMatcher::is_letter);
  if (end > begin) return end;
  end = text.run(at, PieceMatcher::is_number, digits);
  if (end > at) return end;
  end = text.with_space(at, PieceMatcher::is_other);
  if (end > at) return text.run(end, PieceMatcher::is_line_end);
  end = text.line_ends(at);
  return end > at ? end : text.white_space(at);
}

/// The pattern that a regular expression is the text of; none for one that is not known.
inline std::optional<SplitPattern> find_split_pattern(std::string_view regex) {
  for (const KnownSplit& known : kKnownSplits) {
    if (known.regex == regex) return known.pattern;
  }
  return std::nullopt;
}

/// Where the piece that begins at byte `at` of valid UTF-8 ends, at < text.size().
inline std::size_t piece_end(SplitPattern pattern, std::string_view text, std::size_t at) {
  const PieceMatcher matcher(text);
  switch (pattern) {
    case SplitPattern::gpt2:
      return gpt2_end(matcher, at);
    case SplitPattern::llama3:
      return llama3_end(matcher, at, 3);
    case SplitPattern::qwen2:
      return llama3_end(matcher, at, 1);
  }
  return text.size();
}

}  // namespace lorapp::detail
