// Values as text: Python's str() and repr(), and json.dumps().
#pragma once

#include <lorapp/data/jinja_value.hpp>

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

namespace lorapp::detail::jinja {

/// A text that is being made, within the budget.
class TextBuilder {
 public:
  explicit TextBuilder(Budget& budget) : budget_(budget) {}

  void append(std::string_view bytes, TextOrigin origin = {}) {
    budget_.spend_bytes(bytes.size());
    text_.append(bytes, origin);
  }
  void append(const MarkedText& from, std::size_t begin, std::size_t end) {
    budget_.spend_bytes(end - begin);
    text_.append(from, begin, end);
  }
  void append(const MarkedText& from) { append(from, 0, from.size()); }

  const MarkedText& text() const { return text_; }
  Budget& budget() const { return budget_; }
  MarkedText take() { return std::exchange(text_, MarkedText()); }
  Value value() { return Value::text(take()); }

 private:
  Budget& budget_;
  MarkedText text_;
};

/// A double as Python's repr prints it.
inline std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 64> buffer{};
  const double size = std::abs(value);
  const bool plain = value == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = plain ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value, format).ptr;
  std::string text(buffer.data(), end);
  if (plain && text.find('.') == std::string::npos) text += ".0";
  return text;
}

inline std::string hex_escape(const char* format, unsigned code) {
  std::array<char, 16> buffer{};
  std::snprintf(buffer.data(), buffer.size(), format, code);
  return buffer.data();
}

// Python's repr of a string. Characters beyond ASCII count as printable.
inline void write_repr(const MarkedText& value, TextBuilder& out) {
  const std::string& text = value.text();
  const bool doubled = text.find('\'') != std::string::npos && text.find('"') == std::string::npos;
  const char quote = doubled ? '"' : '\'';
  out.append(std::string_view(&quote, 1));
  for (std::size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    const auto byte = static_cast<unsigned char>(c);
    std::string escape;
    if (c == quote || c == '\\') escape = {'\\', c};
    if (c == '\n') escape = "\\n";
    if (c == '\r') escape = "\\r";
    if (c == '\t') escape = "\\t";
    if (escape.empty() && (byte < 0x20 || byte == 0x7f)) escape = hex_escape("\\x%02x", byte);
    if (escape.empty()) {
      out.append(value, at, at + 1);
    } else {
      out.append(escape, value.origin_at(at));
    }
  }
  out.append(std::string_view(&quote, 1));
}

void write_repr(const Value& value, TextBuilder& out);

inline void write_sequence(const ListData& list, TextBuilder& out) {
  const bool tuple = list.shape == ListShape::tuple;
  if (list.shape == ListShape::iterator)
    fail("cannot write an iterator as text; |list makes a list of it");
  out.append(tuple ? "(" : "[");
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    if (i > 0) out.append(", ");
    write_repr(list.items[i], out);
  }
  if (tuple && list.items.size() == 1) out.append(",");
  out.append(tuple ? ")" : "]");
}

/// str(value). Fails for what has no text of use: a namespace, a loop, a macro, a function.
inline void write_text(const Value& value, TextBuilder& out) {
  if (const MarkedText* text = value.text()) {
    out.append(*text);
  } else if (value.is_none()) {
    out.append("None");
  } else if (const bool* flag = value.get<bool>()) {
    out.append(*flag ? "True" : "False");
  } else if (const auto* number = value.get<std::int64_t>()) {
    out.append(std::to_string(*number));
  } else if (const auto* real = value.get<double>()) {
    out.append(float_text(*real));
  } else if (const ListData* list = value.list()) {
    write_sequence(*list, out);
  } else if (const DictData* dict = value.dict()) {
    out.append("{");
    bool first = true;
    for (const auto& [key, item] : dict->items) {
      if (!std::exchange(first, false)) out.append(", ");
      write_repr(key, out);
      out.append(": ");
      write_repr(item, out);
    }
    out.append("}");
  } else if (!value.is_undefined()) {
    fail("cannot write ", value.kind(), " as text");
  }
}

inline void write_repr(const Value& value, TextBuilder& out) {
  if (const MarkedText* text = value.text()) return write_repr(*text, out);
  if (value.is_undefined()) return out.append("Undefined");
  write_text(value, out);
}

inline Value to_text(const Value& value, Budget& budget) {
  if (value.text() != nullptr) return value;
  TextBuilder out(budget);
  write_text(value, out);
  return out.value();
}

/// How tojson prints, as json.dumps.
struct JsonLayout {
  bool ensure_ascii = false;
  bool sort_keys = false;
  int indent = -1;  ///< -1: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

class JsonWriter {
 public:
  JsonWriter(const JsonLayout& layout, TextBuilder& out) : layout_(layout), out_(out) {}

  void write(const Value& value, int level = 0) {
    if (const MarkedText* text = value.text()) {
      write_string(*text);
    } else if (value.is_none()) {
      out_.append("null");
    } else if (const bool* flag = value.get<bool>()) {
      out_.append(*flag ? "true" : "false");
    } else if (const auto* number = value.get<std::int64_t>()) {
      out_.append(std::to_string(*number));
    } else if (const auto* real = value.get<double>()) {
      out_.append(std::isnan(*real)    ? "NaN"
                  : !std::isinf(*real) ? float_text(*real)
                  : *real > 0          ? "Infinity"
                                       : "-Infinity");
    } else if (const ListData* list = value.list()) {
      write_list(*list, level);
    } else if (const DictData* dict = value.dict()) {
      write_dict(*dict, level);
    } else {
      fail("tojson: ", value.kind(), " has no JSON form");
    }
  }

 private:
  void break_line(int level) {
    if (layout_.indent < 0) return;
    out_.append("\n");
    out_.append(std::string(static_cast<std::size_t>(layout_.indent * level), ' '));
  }

  // With an indent, no space follows the separator of items.
  void separate(bool& first) {
    if (!std::exchange(first, false)) out_.append(layout_.item_separator);
  }

  void write_list(const ListData& list, int level) {
    out_.append("[");
    bool first = true;
    for (const Value& item : list.items) {
      separate(first);
      break_line(level + 1);
      write(item, level + 1);
    }
    if (!list.items.empty()) break_line(level);
    out_.append("]");
  }

  void write_dict(const DictData& dict, int level) {
    std::vector<std::pair<Value, const Value*>> items;
    for (const auto& [key, value] : dict.items) items.emplace_back(key_text(key), &value);
    if (layout_.sort_keys)
      std::stable_sort(items.begin(), items.end(), [this](const auto& a, const auto& b) {
        return less(a.first, b.first, out_.budget());
      });
    out_.append("{");
    bool first = true;
    for (const auto& [key, value] : items) {
      separate(first);
      break_line(level + 1);
      write_string(*key.text());
      out_.append(layout_.key_separator);
      write(*value, level + 1);
    }
    if (!items.empty()) break_line(level);
    out_.append("}");
  }

  // A key that is no string is written as its JSON text.
  Value key_text(const Value& key) {
    if (key.text() != nullptr) return key;
    if (key.list() != nullptr || key.dict() != nullptr) fail("tojson: ", key.kind(), " as a key");
    TextBuilder text(out_.budget());
    JsonWriter(layout_, text).write(key);
    return text.value();
  }

  void write_string(const MarkedText& value) {
    const std::string& text = value.text();
    out_.append("\"");
    std::size_t good = 0;  // where the bytes begin that are to be copied
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t length = character_length(text, at);
      const std::string escape = escape_of(Strippable::code_at(text, at));
      if (!escape.empty()) {
        if (at > good) out_.append(value, good, at);
        out_.append(escape, value.origin_at(at));
        good = at + length;
      }
      at += length;
    }
    if (text.size() > good) out_.append(value, good, text.size());
    out_.append("\"");
  }

  // What stands for a character in JSON, empty if it stands for itself.
  std::string escape_of(char32_t code) const {
    switch (code) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\b':
        return "\\b";
      case '\f':
        return "\\f";
      default:
        break;
    }
    if (code < 0x20 || (layout_.ensure_ascii && code > 0x7e && code < 0x10000))
      return hex_escape("\\u%04x", code);
    if (layout_.ensure_ascii && code >= 0x10000)
      return hex_escape("\\u%04x", 0xd800 + ((code - 0x10000) >> 10)) +
             hex_escape("\\u%04x", 0xdc00 + ((code - 0x10000) & 0x3ff));
    return {};
  }

  const JsonLayout& layout_;
  TextBuilder& out_;
};

}  // namespace lorapp::detail::jinja
