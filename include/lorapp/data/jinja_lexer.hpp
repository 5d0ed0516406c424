// The words of a chat template: Jinja's text, tags and expressions, with white space controlled as
// transformers sets it (trim_blocks and lstrip_blocks on).
#pragma once

#include <lorapp/data/jinja_value.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

enum class TokenKind {
  data,         ///< text between tags
  block_begin,  ///< {%
  block_end,    ///< %}
  print_begin,  ///< {{
  print_end,    ///< }}
  name,
  string,
  integer,
  real,
  op,
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text{};
  int line = 1;

  bool is(TokenKind what, std::string_view word) const { return kind == what && text == word; }
  bool is_op(std::string_view word) const { return is(TokenKind::op, word); }
  bool is_name(std::string_view word) const { return is(TokenKind::name, word); }

  /// As an error message shows it.
  std::string shown() const {
    switch (kind) {
      case TokenKind::data:
        return "text";
      case TokenKind::block_begin:
        return "{%";
      case TokenKind::block_end:
        return "%}";
      case TokenKind::print_begin:
        return "{{";
      case TokenKind::print_end:
        return "}}";
      case TokenKind::end:
        return "the end of the template";
      default:
        return "'" + text.substr(0, 60) + "'";
    }
  }
};

/// A failure at a line of the template.
[[noreturn]] inline void fail_at(int line, const std::string& message) {
  fail("line ", line, ": ", message);
}

class Lexer {
 public:
  static std::vector<Token> tokens(std::string_view source) {
    Lexer lexer(source);
    lexer.run();
    return std::move(lexer.tokens_);
  }

 private:
  // Line ends are line feeds; one at the very end does not count.
  explicit Lexer(std::string_view source) {
    for (std::size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
      source_ += source[i] == '\r' ? '\n' : source[i];
    }
    if (source_.ends_with('\n')) source_.pop_back();
  }

  void run() {
    while (at_ < source_.size()) {
      std::size_t open = source_.find('{', at_);
      while (open != std::string::npos && !opens_tag(open)) open = source_.find('{', open + 1);
      const std::size_t end = open == std::string::npos ? source_.size() : open;
      const bool tag = end < source_.size();
      const char sign = tag ? sign_at(end + 2) : 0;
      add_data(end, tag, sign, tag && source_[end + 1] == '{');
      if (!tag) break;
      advance(end + 2 + (sign != 0 ? 1 : 0));
      switch (source_[end + 1]) {
        case '#':
          skip_comment();
          break;
        case '{':
          add(TokenKind::print_begin);
          read_tag("}}", TokenKind::print_end);
          break;
        default:
          if (read_raw()) break;
          add(TokenKind::block_begin);
          read_tag("%}", TokenKind::block_end);
      }
    }
    add(TokenKind::end);
  }

  bool opens_tag(std::size_t at) const {
    return at + 1 < source_.size() &&
           (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#');
  }
  char sign_at(std::size_t at) const {
    const char c = at < source_.size() ? source_[at] : ' ';
    return c == '-' || c == '+' ? c : char{0};
  }
  bool looking_at(std::string_view word) const {
    return std::string_view(source_).substr(at_).starts_with(word);
  }

  void advance(std::size_t to) {
    for (; at_ < to; ++at_) line_ += source_[at_] == '\n';
  }
  void add(TokenKind kind, std::string text = {}) {
    tokens_.push_back({kind, std::move(text), line_});
  }

  // The text up to `end`, where a tag with this sign begins.
  void add_data(std::size_t end, bool tag, char sign, bool print) {
    std::size_t stop = end;
    if (tag && sign == '-') {
      stop = Strippable().skip_back(source_, at_, end);
    } else if (tag && sign != '+' && !print) {
      // A tag that is the first thing on its line takes the white space before it.
      const std::string_view text = std::string_view(source_).substr(at_, end - at_);
      const std::size_t line_end = text.rfind('\n');
      const bool from_line_begin =
          line_end != std::string_view::npos || at_ == 0 || source_[at_ - 1] == '\n';
      const std::size_t first = line_end == std::string_view::npos ? at_ : at_ + line_end + 1;
      if (from_line_begin && Strippable().skip_back(source_, first, end) == first) stop = first;
    }
    if (stop > at_) add(TokenKind::data, source_.substr(at_, stop - at_));
    advance(end);
  }

  // Behind the end of a block or comment: "-" takes all white space, nothing one line end.
  void end_tag(char sign) {
    if (sign == '-') {
      advance(Strippable().skip(source_, at_));
    } else if (sign == 0 && at_ < source_.size() && source_[at_] == '\n') {
      advance(at_ + 1);
    }
  }

  void skip_comment() {
    const int line = line_;
    const std::size_t close = source_.find("#}", at_);
    if (close == std::string::npos) fail_at(line, "{# is not closed by #}");
    const char sign = close > at_ ? sign_at(close - 1) : char{0};
    advance(close + 2);
    end_tag(sign);
  }

  // {% raw %} … {% endraw %}, behind whose "{%" the position is; false if the tag is another.
  bool read_raw() {
    const int line = line_;
    std::size_t at = Strippable().skip(source_, at_);
    if (source_.compare(at, 3, "raw") != 0) return false;
    at = Strippable().skip(source_, at + 3);
    const bool minus = source_.compare(at, 3, "-%}") == 0;
    if (!minus && source_.compare(at, 2, "%}") != 0) return false;
    advance(at + (minus ? 3 : 2));
    if (minus) advance(Strippable().skip(source_, at_));
    for (std::size_t open = source_.find("{%", at_); open != std::string::npos;
         open = source_.find("{%", open + 2)) {
      const char sign = sign_at(open + 2);
      at = Strippable().skip(source_, open + 2 + (sign != 0 ? 1 : 0));
      if (source_.compare(at, 6, "endraw") != 0) continue;
      at = Strippable().skip(source_, at + 6);
      const char end_sign = sign_at(at);
      if (end_sign != 0) ++at;
      if (source_.compare(at, 2, "%}") != 0) continue;
      add_data(open, true, sign, false);
      advance(at + 2);
      end_tag(end_sign);
      return true;
    }
    fail_at(line, "{% raw %} is not closed by {% endraw %}");
  }

  void read_tag(std::string_view close, TokenKind kind) {
    const int line = line_;
    std::string open_brackets;
    for (;;) {
      advance(Strippable().skip(source_, at_));
      if (at_ >= source_.size()) fail_at(line, concat("a tag is not closed by ", close));
      if (open_brackets.empty()) {
        const char sign = sign_at(at_);
        const bool signed_end = sign != 0 && (sign == '-' || kind == TokenKind::block_end) &&
                                source_.compare(at_ + 1, 2, close) == 0;
        if (signed_end || looking_at(close)) {
          add(kind);
          advance(at_ + (signed_end ? 3 : 2));
          if (kind == TokenKind::block_end) return end_tag(signed_end ? sign : char{0});
          return advance(signed_end ? Strippable().skip(source_, at_) : at_);
        }
      }
      read_word(open_brackets);
    }
  }

  static bool is_digit(char c) { return c >= '0' && c <= '9'; }
  static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
  }

  void read_word(std::string& open_brackets) {
    const char c = source_[at_];
    if (c == '\'' || c == '"') return read_string(c);
    if (is_letter(c)) {
      std::size_t end = at_;
      while (end < source_.size() && (is_letter(source_[end]) || is_digit(source_[end]))) ++end;
      add(TokenKind::name, source_.substr(at_, end - at_));
      return advance(end);
    }
    if (is_digit(c)) return read_number();
    for (const std::string_view op : {"//", "**", "==", "!=", ">=", "<="})
      if (looking_at(op)) {
        add(TokenKind::op, std::string(op));
        return advance(at_ + 2);
      }
    constexpr std::string_view kOps = "+-*/%~[](){}<>=.,:|";
    if (kOps.find(c) == std::string_view::npos) {
      const std::string shown = source_.substr(at_, character_length(source_, at_));
      fail_at(line_, concat("'", shown, "' has no meaning here"));
    }
    constexpr std::string_view kOpen = "([{", kClose = ")]}";
    if (kOpen.find(c) != std::string_view::npos) open_brackets += kClose[kOpen.find(c)];
    if (kClose.find(c) != std::string_view::npos) {
      if (open_brackets.empty() || open_brackets.back() != c)
        fail_at(line_,
                concat("'", c, "' closes nothing",
                       open_brackets.empty() ? std::string()
                                             : concat("; expected '", open_brackets.back(), "'")));
      open_brackets.pop_back();
    }
    add(TokenKind::op, std::string(1, c));
    advance(at_ + 1);
  }

  void read_number() {
    std::size_t end = at_;
    std::string digits;
    const auto take_digits = [&] {
      while (end < source_.size() && (is_digit(source_[end]) || source_[end] == '_')) {
        if (source_[end] != '_') digits += source_[end];
        ++end;
      }
    };
    const auto digit_at = [&](std::size_t at) {
      return at < source_.size() && is_digit(source_[at]);
    };
    take_digits();
    bool real = false;
    if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
      real = true;
      digits += source_[end++];
      take_digits();
    }
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const std::size_t sign = sign_at(end + 1) != 0 ? 1 : 0;
      if (digit_at(end + 1 + sign)) {
        real = true;
        digits += source_.substr(end, 1 + sign);
        end += 1 + sign;
        take_digits();
      }
    }
    add(real ? TokenKind::real : TokenKind::integer, digits);
    advance(end);
  }

  void read_string(char quote) {
    const int line = line_;
    std::string text;
    std::size_t at = at_ + 1;
    for (;; ++at) {
      if (at >= source_.size()) fail_at(line, "a string is not closed");
      if (source_[at] == quote) break;
      if (source_[at] != '\\') {
        text += source_[at];
      } else {
        at = read_escape(at + 1, text);
      }
    }
    add(TokenKind::string, std::move(text));
    tokens_.back().line = line;
    advance(at + 1);
  }

  // The escape whose character behind the backslash is at `at`; returns its last byte.
  std::size_t read_escape(std::size_t at, std::string& text) {
    if (at >= source_.size()) return at;
    const char c = source_[at];
    constexpr std::string_view kNames = "ntrabfv\\'\"0", kValues("\n\t\r\a\b\f\v\\'\"\0", 11);
    if (c == '\n') return at;
    if (c >= '0' && c <= '7') {
      char32_t code = 0;
      std::size_t end = at;
      for (; end < at + 3 && end < source_.size() && source_[end] >= '0' && source_[end] <= '7';
           ++end)
        code = code * 8 + static_cast<char32_t>(source_[end] - '0');
      append_utf8(code, text);
      return end - 1;
    }
    if (const std::size_t found = kNames.find(c); found != std::string_view::npos) {
      text += kValues[found];
      return at;
    }
    const std::size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {
      if (c == 'N') fail_at(line_, "\\N{…} in a string is not supported");
      text += '\\';  // not an escape: both characters stay
      text += c;
      return at;
    }
    char32_t code = 0;
    for (std::size_t i = 1; i <= digits; ++i) {
      constexpr std::string_view kHex = "0123456789abcdef";
      const char digit = at + i < source_.size() ? source_[at + i] : ' ';
      const std::size_t value =
          kHex.find(digit >= 'A' && digit <= 'F' ? static_cast<char>(digit + ('a' - 'A')) : digit);
      if (value == std::string_view::npos)
        fail_at(line_, concat("\\", c, " in a string needs ", digits, " hexadecimal digits"));
      code = code * 16 + static_cast<char32_t>(value);
    }
    if (code >= kNumCodePoints || (code >= 0xd800 && code < 0xe000))
      fail_at(line_, concat("\\", c, " in a string names no character"));
    append_utf8(code, text);
    return at + digits;
  }

  std::string source_;
  std::size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace lorapp::detail::jinja
