// JSON text as Python's json.dumps prints it, so that files of both differ in content only.
#include "atomic_file.hpp"
#include "json_file.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace lorapp::detail {

namespace {

constexpr const char* kOp = "json";

void append_unicode_escape(std::string& out, unsigned unit) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += "\\u";
  for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(unit >> shift) & 0xFu];
}

// One code point of well-formed UTF-8 at text[i]; i moves behind it. json::dump has checked the
// text before.
unsigned next_code_point(std::string_view text, std::size_t& i) {
  const auto lead = static_cast<unsigned char>(text[i++]);
  if (lead < 0x80) return lead;
  const int continuation = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
  unsigned point = lead & (0x3Fu >> continuation);
  for (int k = 0; k < continuation; ++k) {
    point = point << 6 | (static_cast<unsigned char>(text[i++]) & 0x3Fu);
  }
  return point;
}

template <class Json>
void append_string(std::string& out, const std::string& text, const JsonStyle& style) {
  try {
    (void)Json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail(kOp, "a string to write is not UTF-8: " + describe(nlohmann::json(text)));
  }
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t begin = i;
    const unsigned point = next_code_point(text, i);
    switch (point) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      default:
        if (point < 0x20 || (style.ensure_ascii && point >= 0x7F && point < 0x10000)) {
          append_unicode_escape(out, point);
        } else if (style.ensure_ascii && point >= 0x10000) {  // a surrogate pair
          append_unicode_escape(out, 0xD800 + ((point - 0x10000) >> 10));
          append_unicode_escape(out, 0xDC00 + ((point - 0x10000) & 0x3FFu));
        } else {
          out.append(text, begin, i - begin);
        }
    }
  }
  out += '"';
}

void append_break(std::string& out, const JsonStyle& style, int level) {
  if (style.indent < 0) return;
  out += '\n';
  out.append(static_cast<std::size_t>(level * style.indent), ' ');
}

template <class Json>
void append(std::string& out, const Json& value, const JsonStyle& style, int level) {
  const std::string_view comma = style.indent < 0 ? ", " : ",";
  if (value.is_object() || value.is_array()) {
    out += value.is_object() ? '{' : '[';
    bool first = true;
    for (auto it = value.begin(); it != value.end(); ++it) {
      if (!first) out += comma;
      first = false;
      append_break(out, style, level + 1);
      if (value.is_object()) {
        append_string<Json>(out, it.key(), style);
        out += ": ";
      }
      append(out, *it, style, level + 1);
    }
    if (!first) append_break(out, style, level);
    out += value.is_object() ? '}' : ']';
  } else if (value.is_string()) {
    append_string<Json>(out, value.template get_ref<const std::string&>(), style);
  } else if (value.is_number_float()) {
    const auto number = value.template get<double>();
    LORAPP_CHECK(std::isfinite(number), kOp, "a number to write is ", number,
                 "; JSON has finite numbers only");
    out += python_float(number);
  } else {
    out += value.dump();  // null, true, false and integers have one spelling
  }
}

template <class Json>
std::string dump(const Json& value, const JsonStyle& style) {
  std::string out;
  append(out, value, style, 0);
  return out;
}

}  // namespace

std::string python_float(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
  // The shortest digits, as d.ddde±x; Python writes them out where -4 <= x < 16.
  std::array<char, 40> buffer;
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                                 std::chars_format::scientific);
  const std::string_view text(buffer.data(), static_cast<std::size_t>(end.ptr - buffer.data()));
  const std::size_t e = text.find('e');
  int exponent = 0;
  const char* exponent_begin = text.data() + e + (text[e + 1] == '+' ? 2 : 1);
  std::from_chars(exponent_begin, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) return std::string(text);

  std::string out = text[0] == '-' ? "-" : "";
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  if (exponent < 0) {
    return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  }
  const auto whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

std::string dump_json(const nlohmann::json& value, const JsonStyle& style) {
  return dump(value, style);
}
std::string dump_json(const nlohmann::ordered_json& value, const JsonStyle& style) {
  return dump(value, style);
}

void write_json_file(const std::filesystem::path& path,
                     const nlohmann::json& value,
                     const JsonStyle& style) {
  write_file_atomically(path, dump_json(value, style) + "\n");
}
void write_json_file(const std::filesystem::path& path,
                     const nlohmann::ordered_json& value,
                     const JsonStyle& style) {
  write_file_atomically(path, dump_json(value, style) + "\n");
}

}  // namespace lorapp::detail
