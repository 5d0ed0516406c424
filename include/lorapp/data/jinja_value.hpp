// Values of a chat template: what a Jinja expression gives, with Python's rules for truth, order,
// equality and text.
// Convention: lists and dicts never change once made, so that no value holds itself; every
// operation pays for its time and memory out of a Budget.
#pragma once

#include <lorapp/data/marked_text.hpp>
#include <lorapp/data/unicode.hpp>
#include <lorapp/error.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace lorapp::detail::jinja {

/// What is wrong with a template, or with what it was given; who catches it adds the line.
class Failure : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

template <class... Pieces>
[[noreturn]] void fail(const Pieces&... pieces) {
  throw Failure(concat(pieces...));
}

/// Bounds what a template may cost. A unit is one step, or kBytes bytes that are made or compared.
class Budget {
 public:
  static constexpr std::size_t kBytes = 32;

  explicit Budget(std::size_t units) : left_(units), units_(units) {}

  void spend(std::size_t units) {
    if (units > left_)
      fail("the template does more than is allowed for a text of this size (", units_,
           " steps); it may not end");
    left_ -= units;
  }
  void spend_bytes(std::size_t bytes) { spend(bytes / kBytes + 1); }

 private:
  std::size_t left_, units_;
};

struct Node;
class Value;

inline constexpr int kMaxValueDepth = 100;  ///< lists in lists

/// What a list is to Python: a tuple prints otherwise, and an iterator (what select() and its kin
/// give) is true even when it is empty, and has neither length nor index.
enum class ListShape { list, tuple, iterator };

struct ListData {
  std::vector<Value> items;
  ListShape shape = ListShape::list;
  int depth = 1;
};

struct DictData {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion
  int depth = 1;
};

/// namespace(): the one thing that a template may change. The interpreter owns it.
struct Namespace {
  std::vector<std::pair<std::string, Value>> items;
};

/// A `loop` variable: the state of one for loop.
struct LoopData;

/// obj.name where name is a method, before it is called.
struct MethodData;

class Value {
 public:
  struct Undefined {
    std::shared_ptr<const std::string> what;  // as an error calls it
  };
  struct None {};
  struct Function {
    std::string_view name;
  };
  using Text = std::shared_ptr<const MarkedText>;
  using List = std::shared_ptr<const ListData>;
  using Dict = std::shared_ptr<const DictData>;
  using Loop = std::shared_ptr<const LoopData>;
  using Method = std::shared_ptr<const MethodData>;
  using Data = std::variant<Undefined,
                            None,
                            bool,
                            std::int64_t,
                            double,
                            Text,
                            List,
                            Dict,
                            Namespace*,
                            Loop,
                            const Node*,
                            Function,
                            Method>;

  Value() = default;  // undefined
  template <class T>
  requires std::is_constructible_v<Data, T> Value(T data)  // NOLINT: implicit
      : data_(std::move(data)) {}

  static Value undefined(std::string what) {
    return Undefined{std::make_shared<const std::string>(std::move(what))};
  }
  static Value none() { return None{}; }
  static Value text(MarkedText text) { return std::make_shared<const MarkedText>(std::move(text)); }
  static Value text(std::string text) { return Value::text(MarkedText(std::move(text))); }
  static Value list(std::vector<Value> items, ListShape shape = ListShape::list);
  static Value dict(std::vector<std::pair<Value, Value>> items);

  template <class T>
  const T* get() const {
    return std::get_if<T>(&data_);
  }
  const MarkedText* text() const { return pointer<Text>(); }
  const ListData* list() const { return pointer<List>(); }
  const DictData* dict() const { return pointer<Dict>(); }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<None>() != nullptr; }
  bool is_number() const { return get<bool>() || get<std::int64_t>() || get<double>(); }

  /// A whole number; true and false are 1 and 0, as in Python.
  const std::int64_t* integer() const {
    static constexpr std::int64_t kBool[] = {0, 1};
    if (const bool* value = get<bool>()) return &kBool[*value];
    return get<std::int64_t>();
  }
  double number() const {
    const double* real = get<double>();
    return real != nullptr ? *real : static_cast<double>(*integer());
  }

  int depth() const;
  bool truth() const;
  /// "a string", "an integer", …, or the undefined thing's name.
  std::string kind() const;

 private:
  template <class Pointer>
  auto pointer() const -> decltype(std::declval<Pointer>().get()) {
    const Pointer* found = get<Pointer>();
    return found != nullptr ? found->get() : nullptr;
  }

  Data data_;
};

struct MethodData {
  Value object;
  std::string name;
};

struct LoopData {
  std::vector<Value> items;
  std::size_t index = 0;
  int depth = 1;
};

inline int deeper(int depth) {
  if (depth >= kMaxValueDepth) fail("lists are nested deeper than ", kMaxValueDepth);
  return depth + 1;
}

inline Value Value::list(std::vector<Value> items, ListShape shape) {
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  return std::make_shared<const ListData>(ListData{std::move(items), shape, deeper(depth)});
}

inline Value Value::dict(std::vector<std::pair<Value, Value>> items) {
  int depth = 0;
  for (const auto& [key, value] : items) depth = std::max({depth, key.depth(), value.depth()});
  return std::make_shared<const DictData>(DictData{std::move(items), deeper(depth)});
}

inline int Value::depth() const {
  if (const ListData* data = list()) return data->depth;
  if (const DictData* data = dict()) return data->depth;
  if (const Loop* loop = get<Loop>()) return (*loop)->depth;
  if (const Method* method = get<Method>()) return (*method)->object.depth();
  return 0;
}

inline bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const std::int64_t* value = integer()) return *value != 0;
  if (const double* value = get<double>()) return *value != 0;
  if (const MarkedText* data = text()) return data->size() > 0;
  if (const ListData* data = list())
    return data->shape == ListShape::iterator || !data->items.empty();
  if (const DictData* data = dict()) return !data->items.empty();
  return true;
}

inline std::string Value::kind() const {
  if (const Undefined* undefined = get<Undefined>())
    return undefined->what ? *undefined->what + ", which is not defined" : "an undefined value";
  constexpr const char* kKinds[] = {
      "undefined", "none",        "a boolean", "an integer", "a number",   "a string", "a list",
      "a dict",    "a namespace", "a loop",    "a macro",    "a function", "a method"};
  return kKinds[data_.index()];
}

// ---- equality and order

bool equal(const Value& a, const Value& b, Budget& budget);

inline bool equal_lists(const ListData& a, const ListData& b, Budget& budget) {
  if (a.shape != b.shape || a.items.size() != b.items.size()) return false;
  for (std::size_t i = 0; i < a.items.size(); ++i)
    if (!equal(a.items[i], b.items[i], budget)) return false;
  return true;
}

/// The value under a key, null if there is none.
inline const Value* find_key(const DictData& dict, const Value& key, Budget& budget) {
  for (const auto& [name, value] : dict.items)
    if (equal(name, key, budget)) return &value;
  return nullptr;
}

inline const Value* find_key(const DictData& dict, std::string_view key) {
  for (const auto& [name, value] : dict.items)
    if (name.text() != nullptr && name.text()->text() == key) return &value;
  return nullptr;
}

inline bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is_number() && b.is_number()) {
    const auto *left = a.integer(), *right = b.integer();
    return left && right ? *left == *right : a.number() == b.number();
  }
  if (a.text() && b.text()) {
    if (a.text()->size() != b.text()->size()) return false;
    budget.spend_bytes(a.text()->size());
    return a.text()->text() == b.text()->text();
  }
  if (a.list() && b.list()) return equal_lists(*a.list(), *b.list(), budget);
  if (a.dict() && b.dict()) {
    if (a.dict()->items.size() != b.dict()->items.size()) return false;
    for (const auto& [key, value] : a.dict()->items) {
      const Value* other = find_key(*b.dict(), key, budget);
      if (other == nullptr || !equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (const auto* space = a.get<Namespace*>())
    return b.get<Namespace*>() != nullptr && *space == *b.get<Namespace*>();
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

/// a < b. Fails for values that Python does not order.
inline bool less(const Value& a, const Value& b, Budget& budget) {
  budget.spend(1);
  if (a.is_number() && b.is_number()) {
    const auto *left = a.integer(), *right = b.integer();
    return left && right ? *left < *right : a.number() < b.number();
  }
  if (a.text() && b.text()) {
    budget.spend_bytes(std::min(a.text()->size(), b.text()->size()));
    return a.text()->text() < b.text()->text();  // bytes of UTF-8 are in order of the characters
  }
  if (a.list() && b.list()) {
    const auto &left = a.list()->items, &right = b.list()->items;
    for (std::size_t i = 0; i < std::min(left.size(), right.size()); ++i)
      if (!equal(left[i], right[i], budget)) return less(left[i], right[i], budget);
    return left.size() < right.size();
  }
  fail("cannot order ", a.kind(), " and ", b.kind());
}

// ---- characters of a string

/// The length in bytes of the character at `at`; a byte that is not UTF-8 is one of its own.
inline std::size_t character_length(std::string_view text, std::size_t at) {
  const Utf8Step step = utf8_step(text, at);
  return step.valid() ? step.length : 1;
}

inline std::int64_t count_characters(std::string_view text) {
  std::int64_t count = 0;
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at)) ++count;
  return count;
}

/// White space as Python's str.strip() and str.split() see it.
inline bool is_python_space(char32_t code) {
  return (code >= 0x1c && code <= 0x1f) || (character_classes()[code] & kWhiteSpace) != 0;
}

// The character that ends before byte `at` > 0: where it begins, and what it is.
inline std::pair<std::size_t, char32_t> character_before(std::string_view text, std::size_t at) {
  for (std::size_t length = 1; length <= 4 && length <= at; ++length) {
    const Utf8Step step = utf8_step(text, at - length);
    if (step.valid() && step.length == length) return {at - length, step.code};
  }
  return {at - 1, kReplacementCode};
}

/// Characters that str.strip takes off an end: white space, or those of `set`.
class Strippable {
 public:
  Strippable() = default;
  explicit Strippable(std::string_view set) : white_space_(false) {
    for (std::size_t at = 0; at < set.size(); at += character_length(set, at))
      codes_.push_back(code_at(set, at));
  }
  static char32_t code_at(std::string_view text, std::size_t at) {
    const Utf8Step step = utf8_step(text, at);
    return step.valid() ? step.code : kReplacementCode;
  }
  bool contains(char32_t code) const {
    return white_space_ ? is_python_space(code)
                        : std::find(codes_.begin(), codes_.end(), code) != codes_.end();
  }
  std::size_t skip(std::string_view text, std::size_t at) const {
    while (at < text.size() && contains(code_at(text, at))) at += character_length(text, at);
    return at;
  }
  std::size_t skip_back(std::string_view text, std::size_t begin, std::size_t at) const {
    while (at > begin) {
      const auto [before, code] = character_before(text, at);
      if (!contains(code)) break;
      at = before;
    }
    return at;
  }

 private:
  bool white_space_ = true;
  std::vector<char32_t> codes_;
};

}  // namespace lorapp::detail::jinja
