// Methods of a chat template's strings and dicts, and what calls of all kinds have in common.
#pragma once

#include <lorapp/data/jinja_names.hpp>
#include <lorapp/data/jinja_strings.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// The arguments of a call.
struct Arguments {
  std::vector<Value> values{};
  std::vector<std::pair<std::string, Value>> named{};

  /// One value for each parameter, undefined where none is given. Fails for more than that.
  std::vector<Value> bind(std::string_view what,
                          std::initializer_list<std::string_view> names) const {
    std::vector<Value> bound = values;
    if (bound.size() > names.size())
      fail(what, " takes ", names.size(), " arguments at most, found ", bound.size());
    bound.resize(names.size());
    for (const auto& [name, value] : named) {
      const auto it = std::find(names.begin(), names.end(), name);
      if (it == names.end()) fail(what, " has no argument '", name, "'");
      const auto index = static_cast<std::size_t>(it - names.begin());
      if (index < values.size()) fail(what, ": the argument '", name, "' is given twice");
      bound[index] = value;
    }
    return bound;
  }
};

inline const MarkedText& need_text(const Value& value, std::string_view what) {
  if (value.text() == nullptr) fail(what, " is ", value.kind(), ", expected a string");
  return *value.text();
}

inline std::int64_t need_integer(const Value& value, std::string_view what) {
  if (value.integer() == nullptr) fail(what, " is ", value.kind(), ", expected an integer");
  return *value.integer();
}

inline std::int64_t integer_or(const Value& value, std::int64_t fallback, std::string_view what) {
  return value.is_undefined() ? fallback : need_integer(value, what);
}

// A count of which -1 means all.
inline std::size_t count_or_all(const Value& value, std::string_view what) {
  const std::int64_t count = integer_or(value, -1, what);
  return count < 0 ? kNoLimit : static_cast<std::size_t>(count);
}

inline Strippable strip_set(const Value& set) {
  constexpr std::size_t kMost = 256;
  if (set.is_undefined() || set.is_none()) return Strippable();
  const std::string& characters = need_text(set, "the set of characters to strip").text();
  if (characters.size() > kMost)
    fail("the set of characters to strip has ", characters.size(), " bytes, expected at most ",
         kMost);
  return Strippable(characters);
}

/// What a loop goes through: the items of a list, keys of a dict, characters of a string.
inline std::vector<Value> items_of(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (const ListData* list = value.list()) {
    budget.spend(4 * list->items.size());
    return list->items;
  }
  if (const DictData* dict = value.dict()) {
    budget.spend(4 * dict->items.size());
    for (const auto& item : dict->items) items.push_back(item.first);
    return items;
  }
  if (const MarkedText* text = value.text()) {
    budget.spend(8 * text->size());
    for (std::size_t at = 0; at < text->size();) {
      const std::size_t end = at + character_length(text->text(), at);
      items.push_back(Value::text(text->slice(at, end)));
      at = end;
    }
    return items;
  }
  if (!value.is_undefined()) fail("cannot go through ", value.kind());
  return items;
}

inline Value pairs_of(const DictData& dict, ListShape shape, Budget& budget) {
  std::vector<Value> pairs;
  budget.spend(8 * dict.items.size());
  for (const auto& [key, value] : dict.items)
    pairs.push_back(Value::list({key, value}, ListShape::tuple));
  return Value::list(std::move(pairs), shape);
}

inline Value length_of(const Value& value) {
  if (value.is_undefined()) return std::int64_t{0};
  if (const MarkedText* text = value.text()) return count_characters(text->text());
  if (const DictData* dict = value.dict()) return static_cast<std::int64_t>(dict->items.size());
  if (value.list() == nullptr || value.list()->shape == ListShape::iterator)
    fail(value.list() ? std::string("an iterator") : value.kind(), " has no length");
  return static_cast<std::int64_t>(value.list()->items.size());
}

/// a in b.
inline bool contains(const Value& container, const Value& value, Budget& budget) {
  if (const MarkedText* text = container.text()) {
    budget.spend_bytes(text->size());
    return find_text(text->text(), need_text(value, "what is looked for in a string").text(), 0) !=
           std::string::npos;
  }
  if (const DictData* dict = container.dict()) return find_key(*dict, value, budget) != nullptr;
  if (const ListData* list = container.list())
    return std::any_of(list->items.begin(), list->items.end(),
                       [&](const Value& item) { return equal(item, value, budget); });
  if (!container.is_undefined()) fail("cannot look into ", container.kind());
  return false;
}

// ---- methods

inline bool is_text_method(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "strip",   "lstrip",     "rstrip",  "startswith",   "endswith",    "split",
      "rsplit",  "splitlines", "upper",   "lower",        "title",       "capitalize",
      "replace", "find",       "count",   "join",         "isdigit",     "isspace",
      "isalpha", "isupper",    "islower", "removeprefix", "removesuffix"};
  return is_one_of(kNames, name);
}

inline bool is_dict_method(std::string_view name) {
  static constexpr std::string_view kNames[] = {"items", "keys", "values", "get"};
  return is_one_of(kNames, name);
}

inline Value join(const std::vector<Value>& items, const MarkedText& separator, Budget& budget) {
  TextBuilder out(budget);
  bool first = true;
  for (const Value& item : items) {
    if (!std::exchange(first, false)) out.append(separator);
    write_text(item, out);
  }
  return out.value();
}

// str.startswith and str.endswith: with one string, or any of a tuple.
inline bool has_affix(const std::string& text, const Value& affix, bool at_end) {
  const auto fits = [&](const Value& value) {
    const std::string& part = need_text(value, at_end ? "endswith" : "startswith").text();
    return at_end ? text.ends_with(part) : text.starts_with(part);
  };
  if (affix.list() == nullptr) return fits(affix);
  return std::any_of(affix.list()->items.begin(), affix.list()->items.end(), fits);
}

inline bool all_characters(const std::string& text, bool (*accepts)(char32_t)) {
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at))
    if (!accepts(Strippable::code_at(text, at))) return false;
  return !text.empty();
}

// str.isupper and str.islower: some letter has a case, and none has the other.
inline bool is_cased(const std::string& text, bool upper) {
  bool some = false;
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at)) {
    const char32_t code = Strippable::code_at(text, at);
    std::string same, other, original;
    append_cased(code, upper, same);
    append_cased(code, !upper, other);
    append_utf8(code, original);
    if (same != original) return false;
    some = some || other != original;
  }
  return some;
}

inline Value call_text_method(const Value& object,
                              const std::string& name,
                              const Arguments& arguments,
                              Budget& budget) {
  const MarkedText& text = *object.text();
  budget.spend_bytes(text.size());
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    const Strippable set = strip_set(arguments.bind(name, {"chars"})[0]);
    return Value::text(strip(text, set, name != "rstrip", name != "lstrip"));
  }
  if (name == "startswith" || name == "endswith")
    return has_affix(text.text(), arguments.bind(name, {"affix"})[0], name == "endswith");
  if (name == "removeprefix" || name == "removesuffix") {
    const Value affix = arguments.bind(name, {"affix"})[0];
    const std::string& part = need_text(affix, name).text();
    if (name == "removeprefix")
      return Value::text(text.slice(text.text().starts_with(part) ? part.size() : 0, text.size()));
    return Value::text(
        text.slice(0, text.size() - (text.text().ends_with(part) ? part.size() : 0)));
  }
  if (name == "split" || name == "rsplit") {
    const auto bound = arguments.bind(name, {"sep", "maxsplit"});
    const std::size_t most = count_or_all(bound[1], "maxsplit");
    if (bound[0].is_undefined() || bound[0].is_none()) {
      if (name == "rsplit" && most != kNoLimit)
        fail("rsplit with a maxsplit, but no separator, is not supported");
      return Value::list(split_words(text, most, budget));
    }
    const std::string& separator = need_text(bound[0], "the separator").text();
    if (separator.empty()) fail(name, ": the separator is empty");
    return Value::list(split(text, separator, most, name == "rsplit", budget));
  }
  if (name == "splitlines") {
    const bool keep = arguments.bind(name, {"keepends"})[0].truth();
    return Value::list(split_lines(text, keep, budget));
  }
  if (name == "replace") {
    const auto bound = arguments.bind(name, {"old", "new", "count"});
    return replace(text, need_text(bound[0], "replace: old"), need_text(bound[1], "replace: new"),
                   count_or_all(bound[2], "replace: count"), budget);
  }
  if (name == "find") {
    const Value what = arguments.bind(name, {"sub"})[0];
    const std::size_t found = find_text(text.text(), need_text(what, name).text(), 0);
    if (found == std::string::npos) return std::int64_t{-1};
    return count_characters(std::string_view(text.text()).substr(0, found));
  }
  if (name == "count") {
    const Value what = arguments.bind(name, {"sub"})[0];
    const std::string& part = need_text(what, name).text();
    if (part.empty()) return count_characters(text.text()) + 1;
    return static_cast<std::int64_t>(split(text, part, kNoLimit, false, budget).size()) - 1;
  }
  if (name == "join") {
    const std::vector<Value> items = items_of(arguments.bind(name, {"items"})[0], budget);
    for (const Value& item : items) need_text(item, "an item of join");
    return join(items, text, budget);
  }
  (void)arguments.bind(name, {});
  if (name == "upper") return change_case(text, CaseRule::upper, budget);
  if (name == "lower") return change_case(text, CaseRule::lower, budget);
  if (name == "title") return change_case(text, CaseRule::title, budget);
  if (name == "capitalize") return change_case(text, CaseRule::capitalize, budget);
  if (name == "isupper" || name == "islower") return is_cased(text.text(), name == "isupper");
  if (name == "isdigit")
    return all_characters(text.text(), [](char32_t c) { return c >= '0' && c <= '9'; });
  if (name == "isspace") return all_characters(text.text(), is_python_space);
  return all_characters(text.text(),
                        [](char32_t c) { return (character_classes()[c] & kLetter) != 0; });
}

inline Value call_dict_method(const Value& object,
                              const std::string& name,
                              const Arguments& arguments,
                              Budget& budget) {
  const DictData& dict = *object.dict();
  if (name == "get") {
    const auto bound = arguments.bind(name, {"key", "default"});
    const Value* found = find_key(dict, bound[0], budget);
    if (found != nullptr) return *found;
    return bound[1].is_undefined() ? Value::none() : bound[1];
  }
  (void)arguments.bind(name, {});
  if (name == "items") return pairs_of(dict, ListShape::list, budget);
  std::vector<Value> result;
  budget.spend(4 * dict.items.size());
  for (const auto& [key, value] : dict.items) result.push_back(name == "keys" ? key : value);
  return Value::list(std::move(result));
}

}  // namespace lorapp::detail::jinja
