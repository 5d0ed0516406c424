// The filters and tests that a chat template may name.
#pragma once

#include <algorithm>
#include <iterator>
#include <string>
#include <string_view>

namespace lorapp::detail::jinja {

inline constexpr std::string_view kFilters[] = {
    "abs",     "capitalize", "count",  "d",      "default",    "dictsort", "e",          "escape",
    "first",   "float",      "indent", "int",    "items",      "join",     "last",       "length",
    "list",    "lower",      "map",    "max",    "min",        "reject",   "rejectattr", "replace",
    "reverse", "round",      "safe",   "select", "selectattr", "sort",     "string",     "sum",
    "title",   "tojson",     "trim",   "unique", "upper"};

inline constexpr std::string_view kTests[] = {
    "==",      "!=",       "<",        "<=",          ">",           ">=",
    "boolean", "callable", "defined",  "divisibleby", "eq",          "equalto",
    "even",    "false",    "float",    "ge",          "greaterthan", "gt",
    "in",      "integer",  "iterable", "le",          "lessthan",    "lower",
    "lt",      "mapping",  "ne",       "none",        "number",      "odd",
    "sameas",  "sequence", "string",   "true",        "undefined",   "upper"};

template <class Names>
bool is_one_of(const Names& names, std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

template <class Names>
std::string joined_names(const Names& names) {
  std::string text;
  for (const std::string_view name : names) text.append(text.empty() ? "" : ", ").append(name);
  return text;
}

inline bool is_filter(std::string_view name) { return is_one_of(kFilters, name); }
inline bool is_test(std::string_view name) { return is_one_of(kTests, name); }
inline std::string filter_names() { return joined_names(kFilters); }
inline std::string test_names() { return joined_names(kTests); }

}  // namespace lorapp::detail::jinja
