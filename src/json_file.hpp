// JSON files: reading with positions and bounds, typed fields, and text as Python's json.dumps
// prints it. A get_* function never throws on content: it adds to the Problems of the file and
// returns a harmless value.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

/// Larger files are refused unread: no configuration comes near it, and a parsed document takes
/// several times its text.
inline constexpr std::size_t kMaxJsonBytes = std::size_t{256} << 20;
/// Deeper nesting is refused: every real file stays below ten.
inline constexpr int kMaxJsonDepth = 256;

/// Parses one JSON document. A syntax error, invalid UTF-8, text behind the document, a key given
/// twice in one object or too deep nesting is an Error(op) that names `subject`, the line and the
/// column.
LORAPP_API nlohmann::json parse_json(std::string_view text,
                                     std::string_view op,
                                     std::string_view subject);

/// The whole content of a regular file, at most `max_bytes` of it; Error(op) names the file and the
/// reason otherwise.
LORAPP_API std::string read_text_file(const std::filesystem::path& path,
                                      std::string_view op,
                                      std::size_t max_bytes = kMaxJsonBytes);

/// parse_json of a file.
LORAPP_API nlohmann::json read_json_file(const std::filesystem::path& path,
                                         std::string_view op,
                                         std::size_t max_bytes = kMaxJsonBytes);

/// The same, where the document must be an object.
LORAPP_API nlohmann::json read_json_object(const std::filesystem::path& path,
                                           std::string_view op,
                                           std::size_t max_bytes = kMaxJsonBytes);

/// A value as an error message shows it: its kind and, cut to a readable length, its text.
LORAPP_API std::string describe(const nlohmann::json& value);

/// A text in quotes for an error message: escaped, and cut to a readable length.
LORAPP_API std::string in_quotes(const std::string& text);

/// The names of one field, newest first, e.g. {"dtype", "torch_dtype"}; the first that is present
/// and not null counts.
class LORAPP_API Keys {
 public:
  Keys(const char* name) : names_{name} {}         // NOLINT: implicit
  Keys(const std::string& name) : names_{name} {}  // NOLINT: implicit
  Keys(std::initializer_list<const char*> names) : names_(names.begin(), names.end()) {}

  /// The field in `object` and the name it was found under; null where it is absent or null.
  const nlohmann::json* find(const nlohmann::json& object, std::string* found_as = nullptr) const;
  /// "dtype" or "dtype (or torch_dtype)".
  std::string text() const;

 private:
  std::vector<std::string> names_;
};

// find_*: nothing where the field is absent or null (or wrong: then a problem was added).
// get_*:  the field is required; a missing or wrong one adds a problem and returns the smallest
// allowed value. get_*_or: an absent or null field means `fallback`.

inline constexpr std::int64_t kAnyIntMin = std::numeric_limits<std::int64_t>::min();
inline constexpr std::int64_t kAnyIntMax = std::numeric_limits<std::int64_t>::max();
inline constexpr double kAnyDouble = std::numeric_limits<double>::max();

/// An integer (a number written without point or exponent) in [min, max].
LORAPP_API std::optional<std::int64_t> find_int(const nlohmann::json& object,
                                                const Keys& keys,
                                                Problems& problems,
                                                std::int64_t min = kAnyIntMin,
                                                std::int64_t max = kAnyIntMax);
LORAPP_API std::int64_t get_int(const nlohmann::json& object,
                                const Keys& keys,
                                Problems& problems,
                                std::int64_t min = kAnyIntMin,
                                std::int64_t max = kAnyIntMax);
LORAPP_API std::int64_t get_int_or(const nlohmann::json& object,
                                   const Keys& keys,
                                   Problems& problems,
                                   std::int64_t fallback,
                                   std::int64_t min = kAnyIntMin,
                                   std::int64_t max = kAnyIntMax);

/// Any number in [min, max].
LORAPP_API std::optional<double> find_double(const nlohmann::json& object,
                                             const Keys& keys,
                                             Problems& problems,
                                             double min = -kAnyDouble,
                                             double max = kAnyDouble);
LORAPP_API double get_double(const nlohmann::json& object,
                             const Keys& keys,
                             Problems& problems,
                             double min = -kAnyDouble,
                             double max = kAnyDouble);
LORAPP_API double get_double_or(const nlohmann::json& object,
                                const Keys& keys,
                                Problems& problems,
                                double fallback,
                                double min = -kAnyDouble,
                                double max = kAnyDouble);

LORAPP_API std::optional<bool> find_bool(const nlohmann::json& object,
                                         const Keys& keys,
                                         Problems& problems);
LORAPP_API bool get_bool(const nlohmann::json& object, const Keys& keys, Problems& problems);
LORAPP_API bool get_bool_or(const nlohmann::json& object,
                            const Keys& keys,
                            Problems& problems,
                            bool fallback);

LORAPP_API std::optional<std::string> find_string(const nlohmann::json& object,
                                                  const Keys& keys,
                                                  Problems& problems);
LORAPP_API std::string get_string(const nlohmann::json& object,
                                  const Keys& keys,
                                  Problems& problems);
LORAPP_API std::string get_string_or(const nlohmann::json& object,
                                     const Keys& keys,
                                     Problems& problems,
                                     std::string fallback);

/// A list of strings; one problem names every element that is none.
LORAPP_API std::optional<std::vector<std::string>> find_strings(const nlohmann::json& object,
                                                                const Keys& keys,
                                                                Problems& problems);
/// One integer or a list of them, as eos_token_id is written.
LORAPP_API std::optional<std::vector<std::int64_t>> find_ints(const nlohmann::json& object,
                                                              const Keys& keys,
                                                              Problems& problems,
                                                              std::int64_t min = kAnyIntMin,
                                                              std::int64_t max = kAnyIntMax);
/// A nested object; null where it is absent, null or something else (then a problem was added).
LORAPP_API const nlohmann::json* find_object(const nlohmann::json& object,
                                             const Keys& keys,
                                             Problems& problems);

/// How dump_json prints; the defaults are json.dumps(value, indent=2, sort_keys=True).
struct JsonStyle {
  /// Spaces a level; -1 is one line with ", " and ": ".
  int indent = 2;
  /// Characters beyond ASCII as \uXXXX.
  bool ensure_ascii = true;
};

/// A double as Python's repr prints it: the shortest text that reads back as the same value
/// ("0.0002", "2e-05", "1.0").
LORAPP_API std::string python_float(double value);

/// The text of a value. nlohmann::json holds its keys sorted, ordered_json in order of insertion. A
/// number that is not finite has no JSON text and is an Error, as is a string that is not UTF-8.
LORAPP_API std::string dump_json(const nlohmann::json& value, const JsonStyle& style = {});
LORAPP_API std::string dump_json(const nlohmann::ordered_json& value, const JsonStyle& style = {});

/// Writes dump_json(value) and a line feed, whole or not at all.
LORAPP_API void write_json_file(const std::filesystem::path& path,
                                const nlohmann::json& value,
                                const JsonStyle& style = {});
LORAPP_API void write_json_file(const std::filesystem::path& path,
                                const nlohmann::ordered_json& value,
                                const JsonStyle& style = {});

}  // namespace lorapp::detail
