// What a chat template does with strings: Python's str methods on marked text. A piece of a string
// keeps its origin; what replaces a character has that character's.
#pragma once

#include <lorapp/data/jinja_text.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail::jinja {

/// The first place of `needle` at or behind `from`, npos if there is none; in linear time.
inline std::size_t find_text(std::string_view text, std::string_view needle, std::size_t from) {
  constexpr std::size_t kShort = 32;
  if (needle.size() <= kShort) return text.find(needle, from);
  // Knuth, Morris and Pratt: border[i] is the longest proper border of needle[0, i].
  std::vector<std::size_t> border(needle.size() + 1, 0);
  for (std::size_t i = 1, length = 0; i < needle.size(); ++i) {
    while (length > 0 && needle[i] != needle[length]) length = border[length];
    if (needle[i] == needle[length]) ++length;
    border[i + 1] = length;
  }
  std::size_t length = 0;
  for (std::size_t at = from; at < text.size(); ++at) {
    while (length > 0 && text[at] != needle[length]) length = border[length];
    if (text[at] == needle[length]) ++length;
    if (length == needle.size()) return at + 1 - length;
  }
  return std::string_view::npos;
}

inline constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();

/// str.strip(), on one side or both.
inline MarkedText strip(const MarkedText& text, const Strippable& set, bool left, bool right) {
  const std::size_t begin = left ? set.skip(text.text(), 0) : 0;
  const std::size_t end = right ? set.skip_back(text.text(), begin, text.size()) : text.size();
  return text.slice(begin, end);
}

/// str.replace(old, with, count). An empty `old` stands between all characters.
inline Value replace(const MarkedText& text,
                     const MarkedText& old,
                     const MarkedText& with,
                     std::size_t count,
                     Budget& budget) {
  TextBuilder out(budget);
  const std::string& bytes = text.text();
  if (old.size() == 0) {
    for (std::size_t at = 0; at <= bytes.size();) {
      if (count > 0) out.append(with);
      count -= count > 0 ? 1 : 0;
      const std::size_t end = at < bytes.size() ? at + character_length(bytes, at) : at + 1;
      if (at < bytes.size()) out.append(text, at, end);
      at = end;
    }
    return out.value();
  }
  std::size_t at = 0;
  for (; count > 0; --count) {
    const std::size_t found = find_text(bytes, old.text(), at);
    if (found == std::string::npos) break;
    out.append(text, at, found);
    out.append(with);
    at = found + old.size();
  }
  out.append(text, at, text.size());
  return out.value();
}

/// str.split(separator, most) and str.rsplit: pieces between separators, most + 1 of them.
inline std::vector<Value> split(const MarkedText& text,
                                std::string_view separator,
                                std::size_t most,
                                bool from_right,
                                Budget& budget) {
  const std::string& bytes = text.text();
  budget.spend_bytes(bytes.size());
  std::vector<std::size_t> places;
  for (std::size_t at = find_text(bytes, separator, 0); at != std::string::npos;
       at = find_text(bytes, separator, at + separator.size())) {
    budget.spend(4);
    places.push_back(at);
    if (!from_right && places.size() >= most) break;
  }
  if (!from_right && places.size() > most) places.resize(most);
  if (from_right && places.size() > most)
    places.erase(places.begin(), places.end() - static_cast<std::ptrdiff_t>(most));
  std::vector<Value> pieces;
  std::size_t begin = 0;
  for (const std::size_t place : places) {
    pieces.push_back(Value::text(text.slice(begin, place)));
    begin = place + separator.size();
  }
  pieces.push_back(Value::text(text.slice(begin, bytes.size())));
  return pieces;
}

/// str.split(): the stretches without white space; behind `most` of them the rest is one.
inline std::vector<Value> split_words(const MarkedText& text, std::size_t most, Budget& budget) {
  const std::string& bytes = text.text();
  budget.spend_bytes(bytes.size());
  std::vector<Value> words;
  const Strippable space;
  for (std::size_t at = space.skip(bytes, 0); at < bytes.size();) {
    budget.spend(4);
    std::size_t end = at;
    if (words.size() == most) {
      end = space.skip_back(bytes, at, bytes.size());
    } else {
      while (end < bytes.size() && !space.contains(Strippable::code_at(bytes, end)))
        end += character_length(bytes, end);
    }
    words.push_back(Value::text(text.slice(at, end)));
    if (words.size() > most) break;
    at = space.skip(bytes, end);
  }
  return words;
}

/// str.splitlines().
inline std::vector<Value> split_lines(const MarkedText& text, bool keep_ends, Budget& budget) {
  const std::string& bytes = text.text();
  budget.spend_bytes(bytes.size());
  const auto ends_line = [](char32_t c) {
    return (c >= 0xa && c <= 0xd) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
           c == 0x2029;
  };
  std::vector<Value> lines;
  for (std::size_t begin = 0, at = 0; begin < bytes.size();) {
    while (at < bytes.size() && !ends_line(Strippable::code_at(bytes, at)))
      at += character_length(bytes, at);
    std::size_t next = at < bytes.size() ? at + character_length(bytes, at) : at;
    if (at + 1 < bytes.size() && bytes[at] == '\r' && bytes[at + 1] == '\n') next = at + 2;
    budget.spend(4);
    lines.push_back(Value::text(text.slice(begin, keep_ends ? next : at)));
    begin = at = next;
  }
  return lines;
}

enum class CaseRule {
  upper,
  lower,
  capitalize,   ///< the first character in upper case, the rest in lower
  title,        ///< str.title(): the first letter of each run of letters
  jinja_title,  ///< the filter: what stands behind white space, "-" or an opening bracket
};

/// A string in another case, character by character.
inline Value change_case(const MarkedText& text, CaseRule rule, Budget& budget) {
  TextBuilder out(budget);
  const std::string& bytes = text.text();
  bool begins = true;  // a word, or the text
  std::string changed;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t length = character_length(bytes, at);
    const char32_t code = Strippable::code_at(bytes, at);
    const bool upper = rule == CaseRule::upper || (rule != CaseRule::lower && begins);
    changed.clear();
    append_cased(code, upper, changed);
    if (bytes.compare(at, length, changed) == 0) {
      out.append(text, at, at + length);
    } else {
      out.append(changed, text.origin_at(at));
    }
    const bool cased = (character_classes()[code] & kLetter) != 0;
    if (rule == CaseRule::capitalize) begins = false;
    if (rule == CaseRule::title) begins = !cased;
    if (rule == CaseRule::jinja_title) {
      constexpr std::u32string_view kBefore = U"-({[<";
      begins = is_python_space(code) || kBefore.find(code) != std::u32string_view::npos;
    }
    at += length;
  }
  return out.value();
}

/// The byte at which each character begins, and the size at the end.
inline std::vector<std::size_t> character_places(std::string_view text, Budget& budget) {
  budget.spend(text.size() / 4 + 1);
  std::vector<std::size_t> places;
  for (std::size_t at = 0; at < text.size(); at += character_length(text, at)) places.push_back(at);
  places.push_back(text.size());
  return places;
}

/// The indices that Python's [start:stop:step] takes out of `size` things; step is not 0.
inline std::vector<std::size_t> slice_indices(std::int64_t size,
                                              const std::int64_t* start,
                                              const std::int64_t* stop,
                                              std::int64_t step) {
  const std::int64_t least = step < 0 ? -1 : 0;
  const std::int64_t most = step < 0 ? size - 1 : size;
  const auto bounded = [&](const std::int64_t* index, std::int64_t fallback) {
    if (index == nullptr) return fallback;
    return std::clamp(*index < 0 ? *index + size : *index, least, most);
  };
  const std::int64_t first = bounded(start, step < 0 ? most : least);
  const std::int64_t last = bounded(stop, step < 0 ? least : most);
  std::vector<std::size_t> indices;
  if (step > 0) {
    for (std::int64_t i = first; i < last; i += std::min(step, last - i))
      indices.push_back(static_cast<std::size_t>(i));
  } else {
    for (std::int64_t i = first; i > last;
         i -= std::min(step == INT64_MIN ? INT64_MAX : -step, i - last))
      indices.push_back(static_cast<std::size_t>(i));
  }
  return indices;
}

inline Value slice_text(const MarkedText& text,
                        const std::int64_t* start,
                        const std::int64_t* stop,
                        std::int64_t step,
                        Budget& budget) {
  const std::vector<std::size_t> places = character_places(text.text(), budget);
  const auto size = static_cast<std::int64_t>(places.size()) - 1;
  const std::vector<std::size_t> indices = slice_indices(size, start, stop, step);
  TextBuilder out(budget);
  if (step == 1) {
    if (!indices.empty()) out.append(text, places[indices.front()], places[indices.back() + 1]);
    return out.value();
  }
  for (const std::size_t i : indices) out.append(text, places[i], places[i + 1]);
  return out.value();
}

}  // namespace lorapp::detail::jinja
