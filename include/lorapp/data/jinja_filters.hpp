// Filters and tests of a chat template, as Jinja 3 defines them (tojson as transformers does).
#pragma once

#include <lorapp/data/jinja_scalars.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// object.name for the things that have items; undefined if there is none.
inline Value item_of(const Value& object, const Value& key, Budget& budget) {
  if (object.is_undefined()) fail("cannot read an item of ", object.kind());
  const Value missing = Value::undefined(
      key.text() != nullptr ? "'" + key.text()->text().substr(0, 60) + "' of " + object.kind()
                            : "an item of " + object.kind());
  if (const DictData* dict = object.dict()) {
    const Value* found = find_key(*dict, key, budget);
    return found != nullptr ? *found : missing;
  }
  if (const auto* space = object.get<Namespace*>(); space != nullptr && key.text() != nullptr) {
    for (const auto& [name, value] : (*space)->items)
      if (name == key.text()->text()) return value;
    return missing;
  }
  const std::int64_t* index = key.integer();
  if (index == nullptr) return missing;
  if (const MarkedText* text = object.text()) {
    const std::vector<std::size_t> places = character_places(text->text(), budget);
    const auto size = static_cast<std::int64_t>(places.size()) - 1;
    const std::int64_t at = *index < 0 ? *index + size : *index;
    if (at < 0 || at >= size) return missing;
    const auto place = static_cast<std::size_t>(at);
    return Value::text(text->slice(places[place], places[place + 1]));
  }
  const ListData* list = object.list();
  if (list == nullptr || list->shape == ListShape::iterator) return missing;
  const auto size = static_cast<std::int64_t>(list->items.size());
  const std::int64_t at = *index < 0 ? *index + size : *index;
  return at >= 0 && at < size ? list->items[static_cast<std::size_t>(at)] : missing;
}

// The attribute that map, selectattr, sort … name: "a", "a.b", or an index.
inline Value attribute_of(Value object, const Value& attribute, Budget& budget) {
  if (attribute.text() == nullptr) return item_of(object, attribute, budget);
  std::string_view path = attribute.text()->text();
  for (;;) {
    const std::size_t dot = path.find('.');
    const std::string part(path.substr(0, dot));
    std::int64_t index = 0;
    const auto number = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = number.ec == std::errc{} && number.ptr == part.data() + part.size();
    object = item_of(object, is_index ? Value(index) : Value::text(part), budget);
    if (dot == std::string_view::npos) return object;
    path.remove_prefix(dot + 1);
  }
}

inline bool apply_test(const std::string& name,
                       const Value& value,
                       const Arguments& arguments,
                       Budget& budget) {
  if (!is_test(name))
    fail("there is no test '", name.substr(0, 60), "'; supported: ", test_names());
  if (name == "divisibleby") {
    const std::int64_t by = need_integer(arguments.bind(name, {"num"})[0], "divisibleby");
    if (by == 0) fail("divisibleby 0");
    return by == -1 || need_integer(value, "what divisibleby asks about") % by == 0;
  }
  static constexpr std::string_view kOfTwo[] = {
      "eq", "equalto", "==",          "ne", "!=", "lt", "lessthan", "<",     "le",
      "<=", "gt",      "greaterthan", ">",  "ge", ">=", "in",       "sameas"};
  if (is_one_of(kOfTwo, name)) {
    const Value other = arguments.bind(name, {"other"})[0];
    if (arguments.values.size() + arguments.named.size() != 1)
      fail("the test '", name, "' needs a value");
    if (name == "eq" || name == "equalto" || name == "==") return equal(value, other, budget);
    if (name == "ne" || name == "!=") return !equal(value, other, budget);
    if (name == "sameas") return value.kind() == other.kind() && equal(value, other, budget);
    if (name == "in") return contains(other, value, budget);
    const bool same = equal(value, other, budget);
    if (name == "le" || name == "<=") return same || less(value, other, budget);
    if (name == "ge" || name == ">=") return same || less(other, value, budget);
    return name.starts_with('l') || name == "<" ? less(value, other, budget)
                                                : less(other, value, budget);
  }
  (void)arguments.bind(name, {});
  const bool is_bool = value.get<bool>() != nullptr;
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.text() != nullptr;
  if (name == "mapping") return value.dict() != nullptr;
  if (name == "iterable")
    return value.text() || value.list() || value.dict() || value.is_undefined() ||
           value.get<Value::Loop>();
  if (name == "sequence")
    return value.text() || value.dict() || value.is_undefined() ||
           (value.list() && value.list()->shape != ListShape::iterator);
  if (name == "number") return value.is_number();
  if (name == "integer") return value.get<std::int64_t>() != nullptr;
  if (name == "float") return value.get<double>() != nullptr;
  if (name == "boolean") return is_bool;
  if (name == "true") return is_bool && *value.get<bool>();
  if (name == "false") return is_bool && !*value.get<bool>();
  if (name == "odd" || name == "even")
    return (need_integer(value, concat("what '", name, "' asks about")) % 2 != 0) ==
           (name == "odd");
  if (name == "upper" || name == "lower") {
    const Value text = to_text(value, budget);
    return is_cased(text.text()->text(), name == "upper");
  }
  return value.get<const Node*>() || value.get<Value::Function>() || value.get<Value::Method>();
}

Value apply_filter(const std::string& name,
                   const Value& value,
                   const Arguments& arguments,
                   Budget& budget);

// The test that select, reject and their kin name in their arguments from `first` on.
inline bool passes(const Value& value,
                   const Arguments& arguments,
                   std::size_t first,
                   Budget& budget) {
  if (arguments.values.size() <= first) return value.truth();
  const std::string& name = need_text(arguments.values[first], "the name of a test").text();
  Arguments rest{.values = {}, .named = arguments.named};
  rest.values.assign(arguments.values.begin() + static_cast<std::ptrdiff_t>(first) + 1,
                     arguments.values.end());
  return apply_test(name, value, rest, budget);
}

inline Value select(const std::string& name,
                    const Value& value,
                    const Arguments& arguments,
                    Budget& budget) {
  const bool by_attribute = name.ends_with("attr");
  const bool wanted = name.starts_with("select");
  if (by_attribute && arguments.values.empty()) fail(name, " needs the name of an attribute");
  std::vector<Value> kept;
  for (Value& item : items_of(value, budget)) {
    const Value subject =
        by_attribute ? attribute_of(item, arguments.values.front(), budget) : item;
    if (passes(subject, arguments, by_attribute ? 1 : 0, budget) == wanted)
      kept.push_back(std::move(item));
  }
  return Value::list(std::move(kept), ListShape::iterator);
}

inline Value map(const Value& value, const Arguments& arguments, Budget& budget) {
  std::vector<Value> items = items_of(value, budget);
  if (arguments.values.empty()) {
    const auto bound = arguments.bind("map", {"attribute", "default"});
    if (bound[0].is_undefined()) fail("map needs the name of a filter, or attribute=");
    for (Value& item : items) {
      item = attribute_of(item, bound[0], budget);
      if (item.is_undefined() && !bound[1].is_undefined()) item = bound[1];
    }
  } else {
    const std::string& name = need_text(arguments.values.front(), "the name of a filter").text();
    Arguments rest{.values = {arguments.values.begin() + 1, arguments.values.end()},
                   .named = arguments.named};
    for (Value& item : items) item = apply_filter(name, item, rest, budget);
  }
  return Value::list(std::move(items), ListShape::iterator);
}

// What sort, unique, min and max compare: the attribute, strings without regard to case.
class SortKey {
 public:
  SortKey(const Value& attribute, const Value& case_sensitive, Budget& budget)
      : attribute_(attribute), case_sensitive_(case_sensitive.truth()), budget_(budget) {}
  Value of(const Value& item) const {
    Value key = attribute_.is_undefined() || attribute_.is_none()
                    ? item
                    : attribute_of(item, attribute_, budget_);
    if (key.text() != nullptr && !case_sensitive_)
      key = change_case(*key.text(), CaseRule::lower, budget_);
    return key;
  }

 private:
  Value attribute_;
  bool case_sensitive_;
  Budget& budget_;
};

inline std::vector<Value> sorted(std::vector<Value> items,
                                 const SortKey& key,
                                 bool reverse,
                                 Budget& budget) {
  std::vector<std::pair<Value, Value>> keyed;
  for (Value& item : items) {
    Value of_item = key.of(item);
    keyed.emplace_back(std::move(of_item), std::move(item));
  }
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? less(b.first, a.first, budget) : less(a.first, b.first, budget);
  });
  items.clear();
  for (auto& pair : keyed) items.push_back(std::move(pair.second));
  return items;
}

// Filters of a list.
inline Value list_filter(const std::string& name,
                         const Value& value,
                         const Arguments& arguments,
                         Budget& budget) {
  if (name == "sort") {
    const auto bound = arguments.bind(name, {"reverse", "case_sensitive", "attribute"});
    return Value::list(sorted(items_of(value, budget), SortKey(bound[2], bound[1], budget),
                              bound[0].truth(), budget));
  }
  if (name == "min" || name == "max" || name == "unique") {
    const auto bound = arguments.bind(name, {"case_sensitive", "attribute"});
    const SortKey key(bound[1], bound[0], budget);
    std::vector<Value> keys, kept;
    for (Value& item : items_of(value, budget)) {
      Value of_item = key.of(item);
      const auto same = [&](const Value& other) { return equal(other, of_item, budget); };
      if (name == "unique" ? std::any_of(keys.begin(), keys.end(), same)
                           : !keys.empty() && !(name == "min" ? less(of_item, keys[0], budget)
                                                              : less(keys[0], of_item, budget)))
        continue;
      if (name != "unique") keys.clear(), kept.clear();
      keys.push_back(std::move(of_item));
      kept.push_back(std::move(item));
    }
    if (name == "unique") return Value::list(std::move(kept), ListShape::iterator);
    return kept.empty() ? Value::undefined("the " + name + " of nothing") : kept.front();
  }
  if (name == "sum") {
    const auto bound = arguments.bind(name, {"attribute", "start"});
    Value total = bound[1].is_undefined() ? Value(std::int64_t{0}) : bound[1];
    for (const Value& item : items_of(value, budget)) {
      const Value part = bound[0].is_undefined() ? item : attribute_of(item, bound[0], budget);
      total = add(total, part, budget);
    }
    return total;
  }
  if (name == "dictsort") {
    const auto bound = arguments.bind(name, {"case_sensitive", "by", "reverse"});
    if (value.dict() == nullptr) fail("dictsort of ", value.kind(), ", expected a dict");
    const bool by_value = bound[1].text() != nullptr && bound[1].text()->text() == "value";
    std::vector<Value> pairs = items_of(pairs_of(*value.dict(), ListShape::list, budget), budget);
    const SortKey key(std::int64_t{by_value ? 1 : 0}, bound[0], budget);
    return Value::list(sorted(std::move(pairs), key, bound[2].truth(), budget));
  }
  (void)arguments.bind(name, {});
  if (name == "items") {
    if (value.is_undefined()) return Value::list({}, ListShape::iterator);
    if (value.dict() == nullptr) fail("items of ", value.kind(), ", expected a dict");
    return pairs_of(*value.dict(), ListShape::iterator, budget);
  }
  std::vector<Value> items = items_of(value, budget);
  if (name == "list") return Value::list(std::move(items));
  if (name == "reverse") {
    std::reverse(items.begin(), items.end());
    return value.text() ? join(items, MarkedText(), budget)
                        : Value::list(std::move(items), ListShape::iterator);
  }
  if (name == "last" && value.list() && value.list()->shape == ListShape::iterator)
    fail("an iterator has no last item; |list makes a list of it");
  if (items.empty()) return Value::undefined("the " + name + " item of nothing");
  return name == "first" ? items.front() : items.back();
}

inline Value apply_filter(const std::string& name,
                          const Value& value,
                          const Arguments& arguments,
                          Budget& budget) {
  budget.spend(1);
  if (!is_filter(name))
    fail("there is no filter '", name.substr(0, 60), "'; supported: ", filter_names());
  if (name == "map") return map(value, arguments, budget);
  if (name.starts_with("select") || name.starts_with("reject"))
    return select(name, value, arguments, budget);
  if (name == "default" || name == "d") {
    const auto bound = arguments.bind(name, {"default_value", "boolean"});
    const bool missing = value.is_undefined() || (bound[1].truth() && !value.truth());
    if (!missing) return value;
    return bound[0].is_undefined() ? Value::text(std::string()) : bound[0];
  }
  if (name == "join") {
    const auto bound = arguments.bind(name, {"d", "attribute"});
    std::vector<Value> items = items_of(value, budget);
    if (!bound[1].is_undefined())
      for (Value& item : items) item = attribute_of(item, bound[1], budget);
    const Value separator = to_text(bound[0], budget);
    return join(items, *separator.text(), budget);
  }
  if (name == "length" || name == "count") {
    (void)arguments.bind(name, {});
    return length_of(value);
  }
  for (const std::string_view of_list : {"list", "first", "last", "reverse", "sort", "unique",
                                         "min", "max", "sum", "items", "dictsort"})
    if (name == of_list) return list_filter(name, value, arguments, budget);
  return scalar_filter(name, value, arguments, budget);
}

}  // namespace lorapp::detail::jinja
