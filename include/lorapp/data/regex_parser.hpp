// The regular expressions of tokenizers, from text to a tree: the subset of Oniguruma (in Ruby's
// syntax, as the Python package tokenizers uses it) that pre-tokenizers need. What is not supported
// is an error that names it.
#pragma once

#include <lorapp/data/regex_tree.hpp>
#include <lorapp/error.hpp>

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace lorapp::detail {

class RegexParser {
 public:
  static RegexNode parse(std::string_view pattern) {
    RegexParser parser(pattern);
    RegexNode node = parser.choice();
    if (parser.at_ < pattern.size()) parser.fail("a ')' closes nothing");
    return node;
  }

 private:
  using Kind = RegexNode::Kind;
  static constexpr std::size_t kMaxPattern = 8192;
  static constexpr int kMaxDepth = 50;
  static constexpr std::size_t kMaxRepeat = 1000;

  explicit RegexParser(std::string_view pattern) : text_(pattern) {
    if (pattern.size() > kMaxPattern)
      fail(concat("it has ", pattern.size(), " bytes, expected at most ", kMaxPattern));
    if (!is_utf8(pattern)) fail("it is not UTF-8");
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw RegexError(concat(what, " (at byte ", at_, " of the pattern)"));
  }

  bool more() const { return at_ < text_.size(); }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  bool take(std::string_view what) {
    if (!text_.substr(at_).starts_with(what)) return false;
    at_ += what.size();
    return true;
  }
  char32_t take_character() {
    if (!more()) fail("it ends too early");
    const Utf8Step step = utf8_step(text_, at_);
    at_ += step.length;
    return step.code;
  }

  RegexNode choice() {
    if (++depth_ > kMaxDepth) fail(concat("groups are nested deeper than ", kMaxDepth));
    const bool fold = fold_;
    RegexNode node{.kind = Kind::choice};
    do node.parts.push_back(sequence());
    while (take("|"));
    fold_ = fold;  // (?i) holds to the end of its group
    --depth_;
    return node.parts.size() == 1 ? std::move(node.parts[0]) : std::move(node);
  }

  RegexNode sequence() {
    RegexNode node{.kind = Kind::sequence};
    char32_t before = 0;  // the character that the part before is, folded
    while (more() && peek() != '|' && peek() != ')') {
      if (take("(?i)")) {
        if (!node.parts.empty()) fail("(?i) in the midst of a pattern is not supported");
        fold_ = true;
        continue;
      }
      const std::size_t begin = at_;
      RegexNode part = atom();
      const bool literal = part.kind == Kind::set && at_ == begin + 1;
      const char32_t now = literal ? lower(text_[begin]) : 0;
      if (fold_) check_folding(before, now);
      before = now;
      node.parts.push_back(quantified(std::move(part)));
    }
    return node;
  }

  static char32_t lower(char c) {
    return static_cast<unsigned char>(c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
  }

  // Some characters fold to two: what would match them is refused.
  void check_folding(char32_t before, char32_t now) const {
    const bool joined = (before == 'f' && (now == 'f' || now == 'i' || now == 'l')) ||
                        (before == 's' && (now == 's' || now == 't'));
    if (joined)
      fail("(?i) with ff, fi, fl, ss or st, which other characters fold to, is not supported");
  }

  void fold(CharacterSet& set) const {
    if (!fold_) return;
    if (set.names_beyond_ascii()) fail("(?i) with characters beyond ASCII is not supported");
    set.add_other_cases();
  }

  static RegexNode repeated(RegexNode part, std::size_t least, std::size_t most) {
    RegexNode node{.kind = Kind::repeat};
    node.least = least;
    node.most = most;
    node.parts.push_back(std::move(part));
    return node;
  }

  std::size_t number() {
    std::size_t value = 0;
    const std::size_t begin = at_;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<std::size_t>(peek() - '0');
      if (value > kMaxRepeat) fail(concat("a count is above ", kMaxRepeat));
      ++at_;
    }
    if (at_ == begin) fail("a '{' that begins no count is not supported; write \\{");
    return value;
  }

  RegexNode quantified(RegexNode part) {
    constexpr std::size_t kNoLimit = RegexNode::kNoLimit;
    RegexNode node;
    bool counted = false;
    if (take("*")) {
      node = repeated(std::move(part), 0, kNoLimit);
    } else if (take("+")) {
      node = repeated(std::move(part), 1, kNoLimit);
    } else if (take("?")) {
      node = repeated(std::move(part), 0, 1);
    } else if (take("{")) {
      counted = true;
      const std::size_t least = peek() == ',' ? 0 : number();
      std::size_t most = least;
      if (take(",")) most = peek() == '}' ? kNoLimit : number();
      if (!take("}")) fail("a count is not closed by '}'");
      if (most < least) fail(concat("a count goes from ", least, " to ", most));
      if (least == most && peek() == '?') fail("{n}? is not supported");
      node = repeated(std::move(part), least, most);
    } else {
      return part;
    }
    const RegexNode& inner = node.parts[0];
    const bool assertion = inner.kind != Kind::set && inner.kind != Kind::sequence &&
                           inner.kind != Kind::choice && inner.kind != Kind::repeat &&
                           inner.kind != Kind::atomic;
    if (assertion || (inner.may_be_empty() && node.most == kNoLimit))
      fail("the repetition of something that matches nothing is not supported");
    if (take("?")) {
      node.greed = RegexNode::Greed::lazy;
    } else if (peek() == '+' && counted) {
      ++at_;  // in Ruby's syntax the repetition of a count, not a possessive one
      if (node.may_be_empty())
        fail("the repetition of something that matches nothing is not supported");
      node = repeated(std::move(node), 1, kNoLimit);
    } else if (take("+")) {
      node.greed = RegexNode::Greed::possessive;
    }
    const char next = peek();
    if (next == '*' || next == '+' || next == '?' || next == '{')
      fail(concat("'", next, "' behind a repetition is not supported"));
    return node;
  }

  RegexNode atom() {
    const char c = peek();
    switch (c) {
      case '(':
        ++at_;
        return group();
      case '[': {
        ++at_;
        RegexNode node{.kind = Kind::set, .set = set()};
        return node;
      }
      case '.': {
        ++at_;
        RegexNode node{.kind = Kind::set};
        node.set.add('\n', '\n');
        node.set.negate();
        return node;
      }
      case '^':
        ++at_;
        return {.kind = Kind::line_begin};
      case '$':
        ++at_;
        return {.kind = Kind::line_end};
      case '*':
      case '+':
      case '?':
      case '{':
        fail(concat("'", c, "' repeats nothing"));
      case '\\':
        if (peek(1) == 'A' || peek(1) == 'z') {
          at_ += 2;
          return {.kind = text_[at_ - 1] == 'A' ? Kind::text_begin : Kind::text_end};
        }
        break;
      default:
        break;
    }
    RegexNode node{.kind = Kind::set};
    if (c == '\\') {
      ++at_;
      if (peek() == 'w' || peek() == 'W') {
        // Outside of a set it also has the numbers of Latin-1: superscripts and fractions.
        node.set.add_class(kRegexWord, false);
        for (const char32_t code : {0xb2, 0xb3, 0xb9, 0xbc, 0xbd, 0xbe}) node.set.add(code, code);
        if (take_character() == 'W') node.set.negate();
      } else if (const auto code = escape(node.set)) {
        node.set.add(*code, *code);
      }
    } else {
      const char32_t code = take_character();
      node.set.add(code, code);
    }
    fold(node.set);
    return node;
  }

  RegexNode group() {
    RegexNode node;
    const bool fold = fold_;
    if (!take("?")) {
      node = choice();
    } else if (take(":")) {
      node = choice();
    } else if (take("i:")) {
      fold_ = true;
      node = choice();
    } else if (take(">")) {
      node = {.kind = Kind::atomic, .parts = {choice()}};
    } else if (peek() == '=' || peek() == '!' ||
               (peek() == '<' && (peek(1) == '=' || peek(1) == '!'))) {
      node.kind = Kind::look;
      node.behind = take("<");
      node.negated = peek() == '!';
      ++at_;
      node.parts.push_back(choice());
      const RegexNode& inner = node.parts[0];
      const bool one_character =
          inner.kind == Kind::set || (inner.kind == Kind::sequence && inner.parts.size() == 1 &&
                                      inner.parts[0].kind == Kind::set);
      if (node.behind && !one_character) fail("(?<=…) of more than one character is not supported");
    } else {
      fail(concat("the group (?", text_.substr(at_, 2), "…) is not supported"));
    }
    fold_ = fold;
    if (!take(")")) fail("a '(' is not closed");
    return node;
  }

  // The set behind a '['.
  CharacterSet set() {
    CharacterSet result;
    const bool negated = take("^");
    if (peek() == ']') fail("an empty set is not supported");
    while (peek() != ']') {
      if (!more()) fail("a '[' is not closed");
      if (peek() == '[') fail("a set within a set is not supported; write \\[");
      if (peek() == '&' && peek(1) == '&') fail("&& in a set is not supported");
      const std::optional<char32_t> first = member(result);
      if (!first) continue;
      const bool range = peek() == '-' && peek(1) != ']' && peek(1) != '\0';
      if (!range) {
        result.add(*first, *first);
        continue;
      }
      ++at_;
      if (peek() == '[') fail("a set within a set is not supported; write \\[");
      CharacterSet ignored;
      const std::optional<char32_t> last = member(ignored);
      if (!last) fail("a range in a set ends in a class");
      if (*last < *first) fail("a range in a set is empty");
      result.add(*first, *last);
    }
    ++at_;
    fold(result);
    if (negated) result.negate();
    return result;
  }

  std::optional<char32_t> member(CharacterSet& result) {
    if (peek() != '\\') return take_character();
    ++at_;
    return escape(result);
  }

  char32_t hexadecimal(std::size_t least, std::size_t most) {
    char32_t code = 0;
    std::size_t count = 0;
    for (; count < most && std::isxdigit(static_cast<unsigned char>(peek())) != 0; ++count, ++at_) {
      const char c = peek();
      const int digit = c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
      code = code * 16 + static_cast<char32_t>(digit);
    }
    if (count < least || code >= kNumCodePoints) fail("a hexadecimal escape names no character");
    return code;
  }

  // What stands behind a backslash: a character, or a class that goes into `set`.
  std::optional<char32_t> escape(CharacterSet& set) {
    const char c = peek();
    const bool ascii_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!ascii_letter && !(c >= '0' && c <= '9')) return take_character();
    ++at_;
    constexpr std::string_view kNames = "ntrfvae", kValues = "\n\t\r\f\v\a\x1b";
    if (const std::size_t found = kNames.find(c); found != std::string_view::npos)
      return static_cast<unsigned char>(kValues[found]);
    switch (c) {
      case 's':
      case 'S':
        set.add_class(kWhiteSpace, c == 'S');
        return std::nullopt;
      case 'w':
      case 'W':
        set.add_class(kRegexWord, c == 'W');
        return std::nullopt;
      case 'd':
      case 'D': {
        const std::uint32_t decimal = *category_mask("Nd");
        set.add_categories(c == 'd' ? decimal : kAllCategories & ~decimal);
        return std::nullopt;
      }
      case 'p':
      case 'P':
        property(c == 'P', set);
        return std::nullopt;
      case 'x':
        if (!take("{")) return hexadecimal(1, 2);
        {
          const char32_t code = hexadecimal(1, 6);
          if (!take("}")) fail("\\x{ is not closed");
          return code;
        }
      case 'u':
        return hexadecimal(4, 4);
      default:
        --at_;
        fail(concat("\\", c, " is not supported"));
    }
  }

  void property(bool complement, CharacterSet& set) {
    const std::size_t close = text_.find('}', at_);
    if (peek() != '{' || close == std::string_view::npos) fail("\\p without {…}");
    std::string_view name = text_.substr(at_ + 1, close - at_ - 1);
    if (name.starts_with('^')) {
      complement = !complement;
      name.remove_prefix(1);
    }
    const auto mask = category_mask(name);
    if (!mask)
      fail(concat("\\p{", name, "} is not supported; supported are categories: L, Lu, N, …"));
    at_ = close + 1;
    set.add_categories(complement ? kAllCategories & ~*mask : *mask);
  }

  std::string_view text_;
  std::size_t at_ = 0;
  int depth_ = 0;
  bool fold_ = false;
};

}  // namespace lorapp::detail
