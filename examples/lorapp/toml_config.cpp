#include "toml_config.hpp"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <string_view>
#include <utility>

namespace lorapp::program {

namespace {

/// Appends a code point in UTF-8.
void append_utf8(std::string& out, unsigned long code) {
  const auto continuation = [&](int shift) {
    out += static_cast<char>(0x80 | ((code >> shift) & 0x3f));
  };
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    continuation(0);
  } else if (code < 0x10000) {
    out += static_cast<char>(0xe0 | (code >> 12));
    continuation(6);
    continuation(0);
  } else {
    out += static_cast<char>(0xf0 | (code >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

class Reader {
 public:
  Reader(const CLI::App& app, std::string text) : app_(app), text_(std::move(text)) {}

  std::vector<CLI::ConfigItem> read() {
    std::vector<CLI::ConfigItem> items;
    for (skip_blank(); !at_end(); skip_blank()) {
      CLI::ConfigItem item;
      item.name = key();
      if (std::ranges::find(items, item.name, &CLI::ConfigItem::name) != items.end()) {
        fail("\"" + item.name + "\" is given twice");
      }
      if (app_.get_option_no_throw("--" + item.name) == nullptr) {
        fail("\"" + item.name + "\" is not an option of " + app_.get_name());
      }
      skip_spaces();
      if (!take('=')) fail("expected '=' after \"" + item.name + "\"");
      skip_spaces();
      if (take('[')) {
        item.inputs = array();
      } else {
        item.inputs = {value()};
      }
      end_of_line();
      items.push_back(std::move(item));
    }
    return items;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw CLI::ConfigError("--config: line " + std::to_string(line_) + ": " + what,
                           CLI::ExitCodes::ConfigError);
  }

  bool at_end() const { return position_ == text_.size(); }
  char peek() const { return at_end() ? '\0' : text_[position_]; }
  char next() {
    if (at_end()) fail("the file ends within a value");
    const char c = text_[position_++];
    if (c == '\n') ++line_;
    return c;
  }
  bool take(char c) {
    if (peek() != c) return false;
    next();
    return true;
  }

  void skip_spaces() {
    while (peek() == ' ' || peek() == '\t' || peek() == '\r') next();
  }
  void skip_comment() {
    if (peek() == '#') {
      while (!at_end() && peek() != '\n') next();
    }
  }
  /// Spaces, comments and line ends.
  void skip_blank() {
    for (;;) {
      skip_spaces();
      skip_comment();
      if (!take('\n')) return;
    }
  }
  void end_of_line() {
    skip_spaces();
    skip_comment();
    if (!at_end() && !take('\n')) fail("unexpected text after the value");
  }

  static bool is_bare(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
           c == '+';
  }
  std::string bare_word() {
    std::string word;
    while (is_bare(peek())) word += next();
    return word;
  }

  std::string key() {
    if (peek() == '[') fail("tables are not used here; write the options at the top level");
    std::string name = peek() == '"' || peek() == '\'' ? value() : bare_word();
    if (name.empty()) fail(std::string("expected an option's name, found '") + peek() + "'");
    std::ranges::replace(name, '_', '-');  // learning_rate is learning-rate
    return name;
  }

  std::string value() {
    if (text_.compare(position_, 3, "\"\"\"") == 0 || text_.compare(position_, 3, "'''") == 0) {
      fail("multi-line strings are not supported; use \\n in \"…\"");
    }
    if (take('\'')) {
      std::string text;
      while (peek() != '\'') text += string_char();
      next();
      return text;
    }
    if (take('"')) {
      std::string text;
      while (peek() != '"') {
        const char c = string_char();
        if (c == '\\') {
          escape(text);
        } else {
          text += c;
        }
      }
      next();
      return text;
    }
    std::string word = bare_word();
    if (word == "true" || word == "false") return word;
    if (word.empty() || (!std::isdigit(static_cast<unsigned char>(word.front())) &&
                         word.front() != '-' && word.front() != '+' && word.front() != '.')) {
      fail("expected a string in quotes, a number, true, false or an array");
    }
    std::erase(word, '_');  // 1_000
    return word;
  }

  char string_char() {
    if (at_end() || peek() == '\n') fail("a string is not closed on its line");
    return next();
  }

  void escape(std::string& out) {
    constexpr std::string_view kLetters = "btnfr\"\\";
    constexpr std::string_view kMeanings = "\b\t\n\f\r\"\\";
    const char c = string_char();
    if (const std::size_t at = kLetters.find(c); at != std::string_view::npos) {
      out += kMeanings[at];
    } else if (c == 'u' || c == 'U') {
      std::string digits;
      for (int i = 0; i < (c == 'u' ? 4 : 8); ++i) digits += string_char();
      if (!std::ranges::all_of(digits, [](unsigned char d) { return std::isxdigit(d); })) {
        fail("\\" + std::string(1, c) + digits + " is not a code point");
      }
      const unsigned long code = std::stoul(digits, nullptr, 16);
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
        fail("\\" + std::string(1, c) + digits + " is not a code point");
      }
      append_utf8(out, code);
    } else {
      fail(std::string("\\") + c + " is not an escape");
    }
  }

  std::vector<std::string> array() {
    std::vector<std::string> values;
    for (skip_blank(); !take(']'); skip_blank()) {
      if (!values.empty()) {
        if (!take(',')) fail("expected ',' or ']' in an array");
        skip_blank();
        if (take(']')) break;  // a comma may stand behind the last element
      }
      values.push_back(value());
    }
    return values;
  }

  const CLI::App& app_;
  std::string text_;
  std::size_t position_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<CLI::ConfigItem> TomlConfig::from_config(std::istream& input) const {
  return Reader(app_, std::string(std::istreambuf_iterator<char>(input), {})).read();
}

}  // namespace lorapp::program
