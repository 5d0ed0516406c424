// CharacterSet: a set of characters as a regular expression names it: ranges, Unicode categories,
// \s, \w and their complements.
#pragma once

#include <lorapp/data/unicode.hpp>

#include <algorithm>
#include <bitset>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

class CharacterSet {
 public:
  void add(char32_t first, char32_t last) {
    ranges_.emplace_back(first, last);
    fill_low();
  }
  /// A set of categories, bit by bit.
  void add_categories(std::uint32_t mask) {
    categories_ |= mask;
    fill_low();
  }
  /// kWhiteSpace, kRegexWord, …, or all characters that are not in it.
  void add_class(CharacterClass which, bool complement) {
    (complement ? lacking_ : classes_) |= static_cast<std::uint8_t>(which);
    fill_low();
  }
  void negate() {
    negated_ = !negated_;
    fill_low();
  }

  /// Adds the other case of every ASCII letter in the set, and the two characters beyond ASCII that
  /// fold to one: U+017F to s, U+212A to k.
  void add_other_cases() {
    std::vector<std::pair<char32_t, char32_t>> more;
    for (char32_t lower = 'a'; lower <= 'z'; ++lower) {
      const char32_t upper = lower - ('a' - 'A');
      const char32_t wide = lower == 's' ? 0x17f : lower == 'k' ? 0x212a : lower;
      if (!in_items(lower) && !in_items(upper) && !in_items(wide)) continue;
      for (const char32_t code : {lower, upper, wide}) more.emplace_back(code, code);
    }
    ranges_.insert(ranges_.end(), more.begin(), more.end());
    fill_low();
  }

  bool contains(char32_t code) const { return code < kLow ? low_[code] : has(code); }

  /// True if the set may hold characters beyond ASCII.
  bool reaches_beyond_ascii() const {
    return negated_ || categories_ != 0 || classes_ != 0 || lacking_ != 0 ||
           std::any_of(ranges_.begin(), ranges_.end(),
                       [](const auto& range) { return range.second >= 0x80; });
  }
  /// True if a range of the set names characters beyond ASCII.
  bool names_beyond_ascii() const {
    return std::any_of(ranges_.begin(), ranges_.end(),
                       [](const auto& range) { return range.second >= 0x80; });
  }

 private:
  static constexpr char32_t kLow = 0x100;

  bool in_items(char32_t code) const {
    if ((categories_ >> static_cast<unsigned>(general_categories()[code]) & 1) != 0) return true;
    const std::uint8_t classes = character_classes()[code];
    if ((classes & classes_) != 0 || (~classes & lacking_) != 0) return true;
    return std::any_of(ranges_.begin(), ranges_.end(), [code](const auto& range) {
      return range.first <= code && code <= range.second;
    });
  }
  bool has(char32_t code) const { return in_items(code) != negated_; }
  void fill_low() {
    for (char32_t code = 0; code < kLow; ++code) low_[code] = has(code);
  }

  std::vector<std::pair<char32_t, char32_t>> ranges_;
  std::uint32_t categories_ = 0;
  std::uint8_t classes_ = 0;
  std::uint8_t lacking_ = 0;  // classes whose complement is in the set
  bool negated_ = false;
  std::bitset<kLow> low_;
};

/// The categories of "L", "Lu", …; none for another name.
inline std::optional<std::uint32_t> category_mask(std::string_view name) {
  std::uint32_t mask = 0;
  for (std::size_t i = 0; i < std::size(kCategoryNames); ++i)
    if (!name.empty() &&
        (kCategoryNames[i] == name || (name.size() == 1 && kCategoryNames[i].starts_with(name))))
      mask |= std::uint32_t{1} << i;
  return mask != 0 ? std::optional(mask) : std::nullopt;
}

inline constexpr std::uint32_t kAllCategories = (std::uint32_t{1} << 30) - 1;

}  // namespace lorapp::detail
