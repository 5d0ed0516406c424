// UTF-8, character classes and cases.
#include <lorapp/data/unicode.hpp>

#include <span>

namespace lorapp::detail {

namespace {

#include "data/unicode_cases.inl"
#include "data/unicode_categories.inl"
#include "data/unicode_classes.inl"

// The stretches of a table, each value `length` times.
template <class Value, std::size_t Size>
std::vector<Value> unrolled(const std::uint32_t (&runs)[Size]) {
  std::vector<Value> result;
  result.reserve(kNumCodePoints);
  for (std::size_t i = 0; i < Size; i += 2)
    result.insert(result.end(), runs[i], static_cast<Value>(runs[i + 1]));
  return result;
}

// The other case of a character by a table of stretches, sorted by their first; itself without one.
template <std::size_t Size>
char32_t other_case(const std::uint32_t (&runs)[Size], char32_t code) {
  std::size_t low = 0, high = Size / 4;  // the last stretch that begins at or before the character
  while (high - low > 1) {
    const std::size_t middle = (low + high) / 2;
    (runs[4 * middle] <= code ? low : high) = middle;
  }
  const std::uint32_t *run = runs + 4 * low, step = run[2];
  const bool inside =
      code >= run[0] && (code - run[0]) % step == 0 && (code - run[0]) / step < run[1];
  return inside ? static_cast<char32_t>(static_cast<std::uint32_t>(code) + run[3]) : code;
}

}  // namespace

bool is_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (!step.valid()) return false;
    at += step.length;
  }
  return true;
}

void append_utf8(char32_t code, std::string& text) {
  const auto put = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | code >> 6);
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3f));
    put(0x80 | (code >> 6 & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

const std::uint8_t* character_classes() {
  static const std::vector<std::uint8_t> classes = unrolled<std::uint8_t>(kClassRuns);
  return classes.data();
}

const Category* general_categories() {
  static const std::vector<Category> categories = unrolled<Category>(kCategoryRuns);
  return categories.data();
}

void append_cased(char32_t code, bool upper, std::string& text) {
  const std::span<const std::uint32_t> several = upper ? std::span<const std::uint32_t>(kLongUpper)
                                                       : std::span<const std::uint32_t>(kLongLower);
  for (std::size_t i = 0; i < several.size() && code >= 0x80; i += 4) {
    if (several[i] != code) continue;
    for (std::size_t k = 1; k < 4 && several[i + k] != 0; ++k) append_utf8(several[i + k], text);
    return;
  }
  append_utf8(upper ? other_case(kUpperRuns, code) : other_case(kLowerRuns, code), text);
}

}  // namespace lorapp::detail
