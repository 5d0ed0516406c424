// Arithmetic of a chat template, and the filters of one string or number.
#pragma once

#include <lorapp/data/jinja_methods.hpp>

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

inline constexpr std::size_t kMaxRepeats = std::size_t{1} << 20;

[[noreturn]] inline void fail_operands(std::string_view op, const Value& a, const Value& b) {
  fail("cannot compute ", a.kind(), " ", op, " ", b.kind());
}

/// a + b: numbers, strings or lists.
inline Value add(const Value& a, const Value& b, Budget& budget) {
  if (a.text() && b.text()) {
    TextBuilder out(budget);
    out.append(*a.text());
    out.append(*b.text());
    return out.value();
  }
  if (a.list() && b.list() && a.list()->shape == b.list()->shape) {
    budget.spend(4 * (a.list()->items.size() + b.list()->items.size()));
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return Value::list(std::move(items), a.list()->shape);
  }
  if (!a.is_number() || !b.is_number()) fail_operands("+", a, b);
  std::int64_t sum = 0;
  if (!a.integer() || !b.integer()) return a.number() + b.number();
  if (__builtin_add_overflow(*a.integer(), *b.integer(), &sum)) fail("an integer is too large");
  return sum;
}

// a string or list, repeated.
inline std::optional<Value> repeat(const Value& a, const Value& times, Budget& budget) {
  if (!times.integer() || (!a.text() && !a.list())) return std::nullopt;
  const std::int64_t count = std::max<std::int64_t>(*times.integer(), 0);
  if (static_cast<std::size_t>(count) > kMaxRepeats)
    fail("a string or list is repeated ", count, " times; expected at most ", kMaxRepeats);
  TextBuilder text(budget);
  std::vector<Value> items;
  for (std::int64_t i = 0; i < count; ++i) {
    if (a.text()) {
      text.append(*a.text());
    } else {
      budget.spend(4 * a.list()->items.size() + 1);
      items.insert(items.end(), a.list()->items.begin(), a.list()->items.end());
    }
  }
  return a.text() ? text.value() : Value::list(std::move(items), a.list()->shape);
}

inline std::int64_t integer_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (; exponent > 0; --exponent) {
    if (__builtin_mul_overflow(result, base, &result)) fail("an integer is too large");
    if (base == 0 || base == 1 || (base == -1 && exponent % 2 == 1)) return result;
    if (base == -1) return 1;
  }
  return result;
}

/// The operators between two values but "+" of lists and strings, which add() has too.
inline Value arithmetic(const std::string& op, const Value& a, const Value& b, Budget& budget) {
  if (op == "+") return add(a, b, budget);
  if (op == "*") {
    if (auto repeated = repeat(a, b, budget)) return std::move(*repeated);
    if (auto repeated = repeat(b, a, budget)) return std::move(*repeated);
  }
  if (!a.is_number() || !b.is_number()) fail_operands(op, a, b);
  const bool divides = op == "/" || op == "//" || op == "%";
  if (divides && b.number() == 0) fail("division by zero");
  const auto *left = a.integer(), *right = b.integer();
  if (!left || !right || op == "/" || (op == "**" && *right < 0)) {
    const double x = a.number(), y = b.number();
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    if (op == "/") return x / y;
    if (op == "//") return std::floor(x / y);
    if (op == "%") return x - y * std::floor(x / y);
    if (x == 0 && y < 0) fail("0 to a negative power");
    return std::pow(x, y);
  }
  std::int64_t result = 0;
  if (op == "**") return integer_power(*left, *right);
  if (op == "//" || op == "%") {
    if (*right == -1) return op == "%" ? Value(std::int64_t{0}) : arithmetic("*", a, b, budget);
    const std::int64_t rest = *left % *right;
    const bool down = rest != 0 && (rest < 0) != (*right < 0);
    return op == "%" ? rest + (down ? *right : 0) : *left / *right - (down ? 1 : 0);
  }
  const bool overflow = op == "-" ? __builtin_sub_overflow(*left, *right, &result)
                                  : __builtin_mul_overflow(*left, *right, &result);
  if (overflow) fail("an integer is too large");
  return result;
}

// The number that a whole string spells, as Python's int() and float() read it.
template <class Number>
std::optional<Number> spelled(std::string_view text) {
  const std::size_t begin = Strippable().skip(text, 0);
  text = text.substr(begin, Strippable().skip_back(text, begin, text.size()) - begin);
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  Number value{};
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || result.ec != std::errc{} || result.ptr != text.data() + text.size())
    return std::nullopt;
  return value;
}

inline std::optional<std::int64_t> truncated(double value) {
  constexpr double kLimit = 9.2e18;
  if (!(std::abs(value) < kLimit)) return std::nullopt;
  return static_cast<std::int64_t>(value);
}

inline Value to_integer(const Value& value, const Value& fallback) {
  std::optional<std::int64_t> number;
  if (value.integer()) {
    number = *value.integer();
  } else if (value.get<double>()) {
    number = truncated(value.number());
  } else if (value.text()) {
    number = spelled<std::int64_t>(value.text()->text());
    if (const auto real = spelled<double>(value.text()->text()); !number && real)
      number = truncated(*real);
  }
  if (number) return *number;
  return fallback.is_undefined() ? Value(std::int64_t{0}) : fallback;
}

inline Value to_float(const Value& value, const Value& fallback) {
  if (value.is_number()) return value.number();
  if (value.text())
    if (const auto number = spelled<double>(value.text()->text())) return *number;
  return fallback.is_undefined() ? Value(0.0) : fallback;
}

// The filter round: a float, also of an integer.
inline Value rounded(const Value& value, const Arguments& arguments) {
  const auto bound = arguments.bind("round", {"precision", "method"});
  if (!value.is_number()) fail("round of ", value.kind(), ", expected a number");
  const std::int64_t digits = integer_or(bound[0], 0, "round: precision");
  if (digits < 0 || digits > 15) fail("round: the precision is ", digits, ", expected 0 to 15");
  const std::string method =
      bound[1].is_undefined() ? "common" : need_text(bound[1], "round: method").text();
  const double scale = std::pow(10.0, static_cast<double>(digits));
  const double x = value.number() * scale;
  if (method == "ceil") return std::ceil(x) / scale;
  if (method == "floor") return std::floor(x) / scale;
  if (method != "common") fail("round: the method is '", method.substr(0, 60), "'");
  return std::nearbyint(x) / scale;  // halves to even, as Python rounds
}

inline Value to_json(const Value& value, const Arguments& arguments, Budget& budget) {
  const auto bound =
      arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonLayout layout{.ensure_ascii = bound[0].truth(), .sort_keys = bound[3].truth()};
  if (!bound[1].is_undefined() && !bound[1].is_none()) {
    const std::int64_t indent = need_integer(bound[1], "tojson: indent");
    if (indent < 0 || indent > 16) fail("tojson: indent is ", indent, ", expected 0 to 16");
    layout.indent = static_cast<int>(indent);
    layout.item_separator = ",";
  }
  if (const ListData* separators = bound[2].list()) {
    if (separators->items.size() != 2) fail("tojson: separators are not two");
    layout.item_separator = need_text(separators->items[0], "a separator").text();
    layout.key_separator = need_text(separators->items[1], "a separator").text();
  }
  TextBuilder out(budget);
  JsonWriter(layout, out).write(value);
  return out.value();
}

// Every line but the first (and empty ones, unless asked for) moves to the right.
inline Value indented(const MarkedText& text, const Arguments& arguments, Budget& budget) {
  const auto bound = arguments.bind("indent", {"width", "first", "blank"});
  std::string margin(4, ' ');
  if (bound[0].text()) {
    margin = bound[0].text()->text();
  } else if (!bound[0].is_undefined()) {
    const std::int64_t width = need_integer(bound[0], "indent: width");
    if (width < 0 || width > 256) fail("indent: width is ", width, ", expected 0 to 256");
    margin.assign(static_cast<std::size_t>(width), ' ');
  }
  TextBuilder out(budget);
  bool is_first = true;
  for (const Value& line : split(text, "\n", kNoLimit, false, budget)) {
    const bool move = is_first ? bound[1].truth() : bound[2].truth() || line.text()->size() > 0;
    if (!std::exchange(is_first, false)) out.append("\n");
    if (move) out.append(margin);
    out.append(*line.text());
  }
  return out.value();
}

inline Value escaped(const MarkedText& text, Budget& budget) {
  TextBuilder out(budget);
  for (std::size_t at = 0; at < text.size(); ++at) {
    constexpr std::string_view kSpecial = "&<>'\"";
    constexpr std::string_view kWritten[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    const std::size_t found = kSpecial.find(text.text()[at]);
    if (found == std::string_view::npos) {
      out.append(text, at, at + 1);
    } else {
      out.append(kWritten[found], text.origin_at(at));
    }
  }
  return out.value();
}

/// Filters of one value that is no list.
inline Value scalar_filter(const std::string& name,
                           const Value& value,
                           const Arguments& arguments,
                           Budget& budget) {
  if (name == "tojson") return to_json(value, arguments, budget);
  if (name == "round") return rounded(value, arguments);
  if (name == "int" || name == "float") {
    const Value fallback = arguments.bind(name, {"default"})[0];
    return name == "int" ? to_integer(value, fallback) : to_float(value, fallback);
  }
  if (name == "abs") {
    (void)arguments.bind(name, {});
    if (!value.is_number()) fail("abs of ", value.kind(), ", expected a number");
    return value.number() < 0 ? arithmetic("*", value, std::int64_t{-1}, budget) : value;
  }
  const Value text = to_text(value, budget);
  if (name == "trim")
    return Value::text(
        strip(*text.text(), strip_set(arguments.bind(name, {"chars"})[0]), true, true));
  if (name == "replace") {
    const auto bound = arguments.bind(name, {"old", "new", "count"});
    const Value old = to_text(bound[0], budget), with = to_text(bound[1], budget);
    const bool all = bound[2].is_undefined() || bound[2].is_none();
    return replace(*text.text(), *old.text(), *with.text(),
                   all ? kNoLimit : count_or_all(bound[2], "replace: count"), budget);
  }
  if (name == "indent") return indented(*text.text(), arguments, budget);
  (void)arguments.bind(name, {});
  if (name == "upper") return change_case(*text.text(), CaseRule::upper, budget);
  if (name == "lower") return change_case(*text.text(), CaseRule::lower, budget);
  if (name == "title") return change_case(*text.text(), CaseRule::jinja_title, budget);
  if (name == "capitalize") return change_case(*text.text(), CaseRule::capitalize, budget);
  if (name == "e" || name == "escape") return escaped(*text.text(), budget);
  return text;  // string, safe
}

}  // namespace lorapp::detail::jinja
