// Reading of JSON files and their typed fields; json_dump.cpp prints them.
#include "json_file.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <memory>
#include <set>
#include <system_error>

namespace lorapp::detail {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t kMaxShownBytes = 60;

// nlohmann's "[json.exception.parse_error.101] parse error at line 1, column 2: reason" down to the
// reason.
std::string reason_of(const json::exception& error) {
  std::string message = error.what();
  if (const auto end = message.find("] ");
      message.starts_with("[json.") && end != std::string::npos) {
    message.erase(0, end + 2);
  }
  if (const auto end = message.find(": ");
      message.starts_with("parse error at") && end != std::string::npos) {
    message.erase(0, end + 2);
  }
  return message;
}

// Where the last byte that was read stands; nlohmann's own column is 0 behind a line break.
std::string position_of(std::string_view text, std::size_t bytes_read) {
  const std::string_view before =
      text.substr(0, std::min(bytes_read > 0 ? bytes_read - 1 : 0, text.size()));
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_begin =
      before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
  return concat("line ", line, ", column ", before.size() - line_begin + 1);
}

// nlohmann keeps the last of two equal keys in silence; this remembers the keys of every open
// object.
class DocumentGuard {
 public:
  bool operator()(int depth, json::parse_event_t event, json& parsed) {
    if (depth > kMaxJsonDepth) too_deep_ = true;
    if (event == json::parse_event_t::object_start) {
      open_.emplace_back();
    } else if (event == json::parse_event_t::object_end) {
      if (!open_.empty()) open_.pop_back();
    } else if (event == json::parse_event_t::key && !open_.empty()) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!open_.back().insert(key).second && repeated_.size() < kMaxListed)
        repeated_.push_back(key);
    }
    return !too_deep_;
  }
  bool too_deep() const { return too_deep_; }
  const std::vector<std::string>& repeated() const { return repeated_; }

 private:
  static constexpr std::size_t kMaxListed = 20;
  std::vector<std::set<std::string>> open_;
  std::vector<std::string> repeated_;
  bool too_deep_ = false;
};

std::string range_text(std::int64_t min, std::int64_t max) {
  if (min == kAnyIntMin && max == kAnyIntMax) return "an integer";
  if (max == kAnyIntMax) return concat("an integer of at least ", min);
  if (min == kAnyIntMin) return concat("an integer of at most ", max);
  return concat("an integer from ", min, " to ", max);
}

std::string range_text(double min, double max) {
  if (min == -kAnyDouble && max == kAnyDouble) return "a number";
  if (max == kAnyDouble) return "a number of at least " + python_float(min);
  if (min == -kAnyDouble) return "a number of at most " + python_float(max);
  return "a number from " + python_float(min) + " to " + python_float(max);
}

void add_wrong(Problems& problems,
               const std::string& name,
               const json& found,
               const std::string& expected) {
  problems.add(name, " is ", describe(found), "; expected ", expected);
}

void add_missing(Problems& problems, const Keys& keys, const std::string& expected) {
  problems.add(keys.text(), " is missing; expected ", expected);
}

// Integers as the document wrote them: nlohmann reads one beyond 64 bits as a double, which is
// refused here.
std::optional<std::int64_t> as_int(const json& value) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number > static_cast<std::uint64_t>(kAnyIntMax)) return std::nullopt;
    return static_cast<std::int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<std::int64_t>();
  return std::nullopt;
}

}  // namespace

std::string read_text_file(const fs::path& path, std::string_view op, std::size_t max_bytes) {
  std::error_code error;
  const auto status = fs::status(path, error);
  LORAPP_CHECK(fs::status_known(status), op, path.string(), ": ", error.message());
  LORAPP_CHECK(fs::exists(status), op, path.string(), ": no such file");
  LORAPP_CHECK(fs::is_regular_file(status), op, path.string(), ": not a regular file");
  const auto size = fs::file_size(path, error);
  LORAPP_CHECK(!error, op, path.string(), ": ", error.message());
  LORAPP_CHECK(size <= max_bytes, op, path.string(), ": has ", size, " bytes; at most ", max_bytes,
               " are read");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             &std::fclose);
  LORAPP_CHECK(file != nullptr, op, path.string(),
               ": cannot be opened: ", std::generic_category().message(errno));
  std::string text(size, '\0');
  const std::size_t count = std::fread(text.data(), 1, text.size(), file.get());
  LORAPP_CHECK(count == text.size(), op, path.string(), ": only ", count, " of ", text.size(),
               " bytes can be read");
  return text;
}

json parse_json(std::string_view text, std::string_view op, std::string_view subject) {
  LORAPP_CHECK(text.find_first_not_of(" \t\r\n") != std::string_view::npos, op, subject,
               ": is empty; expected a JSON document");
  DocumentGuard guard;
  json document;
  try {
    document = json::parse(text.begin(), text.end(),
                           [&guard](int depth, json::parse_event_t event, json& parsed) {
                             return guard(depth, event, parsed);
                           });
  } catch (const json::parse_error& error) {
    fail(op, concat(subject, ": ", position_of(text, error.byte), ": ", reason_of(error)));
  } catch (const json::exception& error) {
    fail(op, concat(subject, ": ", reason_of(error)));
  }
  LORAPP_CHECK(!guard.too_deep(), op, subject, ": is nested more than ", kMaxJsonDepth,
               " levels deep");
  Problems problems{std::string(op), std::string(subject)};
  for (const std::string& key : guard.repeated()) {
    problems.add("key ", describe(json(key)), " is given more than once in one object");
  }
  problems.throw_if_any();
  return document;
}

json read_json_file(const fs::path& path, std::string_view op, std::size_t max_bytes) {
  return parse_json(read_text_file(path, op, max_bytes), op, path.string());
}

json read_json_object(const fs::path& path, std::string_view op, std::size_t max_bytes) {
  json document = read_json_file(path, op, max_bytes);
  LORAPP_CHECK(document.is_object(), op, path.string(), ": holds ", describe(document),
               "; expected an object {…}");
  return document;
}

std::string describe(const json& value) {
  if (value.is_null()) return "null";
  if (value.is_object()) return concat("an object of ", value.size(), " keys");
  if (value.is_array()) return concat("a list of ", value.size());
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > kMaxShownBytes) {
    std::size_t end = kMaxShownBytes;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
    text = text.substr(0, end) + "…" + (value.is_string() ? "\"" : "");
  }
  return text;
}

std::string in_quotes(const std::string& text) { return describe(json(text)); }

const json* Keys::find(const json& object, std::string* found_as) const {
  if (!object.is_object()) return nullptr;
  for (const std::string& name : names_) {
    const auto it = object.find(name);
    if (it != object.end() && !it->is_null()) {
      if (found_as != nullptr) *found_as = name;
      return &*it;
    }
  }
  return nullptr;
}

std::string Keys::text() const {
  std::string text = names_.front();
  for (std::size_t i = 1; i < names_.size(); ++i) text += (i == 1 ? " (or " : ", ") + names_[i];
  return names_.size() > 1 ? text + ")" : text;
}

std::optional<std::int64_t> find_int(
    const json& object, const Keys& keys, Problems& problems, std::int64_t min, std::int64_t max) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  const auto number = as_int(*value);
  if (!number || *number < min || *number > max) {
    add_wrong(problems, name, *value, range_text(min, max));
    return std::nullopt;
  }
  return number;
}

std::int64_t get_int(
    const json& object, const Keys& keys, Problems& problems, std::int64_t min, std::int64_t max) {
  if (keys.find(object) == nullptr) add_missing(problems, keys, range_text(min, max));
  return find_int(object, keys, problems, min, max).value_or(min == kAnyIntMin ? 0 : min);
}

std::int64_t get_int_or(const json& object,
                        const Keys& keys,
                        Problems& problems,
                        std::int64_t fallback,
                        std::int64_t min,
                        std::int64_t max) {
  return find_int(object, keys, problems, min, max).value_or(fallback);
}

std::optional<double> find_double(
    const json& object, const Keys& keys, Problems& problems, double min, double max) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  if (value->is_number()) {
    const double number = value->get<double>();
    if (number >= min && number <= max) return number;
  }
  add_wrong(problems, name, *value, range_text(min, max));
  return std::nullopt;
}

double get_double(
    const json& object, const Keys& keys, Problems& problems, double min, double max) {
  if (keys.find(object) == nullptr) add_missing(problems, keys, range_text(min, max));
  return find_double(object, keys, problems, min, max).value_or(min == -kAnyDouble ? 0.0 : min);
}

double get_double_or(const json& object,
                     const Keys& keys,
                     Problems& problems,
                     double fallback,
                     double min,
                     double max) {
  return find_double(object, keys, problems, min, max).value_or(fallback);
}

std::optional<bool> find_bool(const json& object, const Keys& keys, Problems& problems) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>();
  add_wrong(problems, name, *value, "true or false");
  return std::nullopt;
}

bool get_bool(const json& object, const Keys& keys, Problems& problems) {
  if (keys.find(object) == nullptr) add_missing(problems, keys, "true or false");
  return find_bool(object, keys, problems).value_or(false);
}

bool get_bool_or(const json& object, const Keys& keys, Problems& problems, bool fallback) {
  return find_bool(object, keys, problems).value_or(fallback);
}

std::optional<std::string> find_string(const json& object, const Keys& keys, Problems& problems) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  add_wrong(problems, name, *value, "a string");
  return std::nullopt;
}

std::string get_string(const json& object, const Keys& keys, Problems& problems) {
  if (keys.find(object) == nullptr) add_missing(problems, keys, "a string");
  return find_string(object, keys, problems).value_or("");
}

std::string get_string_or(const json& object,
                          const Keys& keys,
                          Problems& problems,
                          std::string fallback) {
  return find_string(object, keys, problems).value_or(std::move(fallback));
}

std::optional<std::vector<std::string>> find_strings(const json& object,
                                                     const Keys& keys,
                                                     Problems& problems) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  if (!value->is_array()) {
    add_wrong(problems, name, *value, "a list of strings");
    return std::nullopt;
  }
  std::vector<std::string> strings;
  std::string wrong;
  for (std::size_t i = 0; i < value->size(); ++i) {
    const json& element = (*value)[i];
    if (element.is_string()) {
      strings.push_back(element.get<std::string>());
    } else {
      wrong += concat(wrong.empty() ? "" : ", ", "element ", i, " is ", describe(element));
    }
  }
  if (!wrong.empty()) {
    problems.add(name, ": ", wrong, "; expected a list of strings");
    return std::nullopt;
  }
  return strings;
}

std::optional<std::vector<std::int64_t>> find_ints(
    const json& object, const Keys& keys, Problems& problems, std::int64_t min, std::int64_t max) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr) return std::nullopt;
  const json list = value->is_array() ? *value : json::array({*value});
  std::vector<std::int64_t> numbers;
  for (const json& element : list) {
    const auto number = as_int(element);
    if (!number || *number < min || *number > max) {
      add_wrong(problems, name, element, range_text(min, max) + " or a list of them");
      return std::nullopt;
    }
    numbers.push_back(*number);
  }
  return numbers;
}

const json* find_object(const json& object, const Keys& keys, Problems& problems) {
  std::string name;
  const json* value = keys.find(object, &name);
  if (value == nullptr || value->is_object()) return value;
  add_wrong(problems, name, *value, "an object {…}");
  return nullptr;
}

}  // namespace lorapp::detail
