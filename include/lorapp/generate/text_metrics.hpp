// How close a generated text is to the expected one: equal or not, and the overlap of words.
// White space at the ends never counts; words are what white space separates, letters' case counts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>
#include <sstream>
#include <string>
#include <string_view>

namespace lorapp {

/// `text` without white space at its ends.
inline std::string_view strip(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

/// True if the texts are equal, white space at the ends aside.
inline bool exact_match(std::string_view got, std::string_view want) {
  return strip(got) == strip(want);
}

/// The harmonic mean of precision and recall of the words, repeated words counted (as SQuAD counts:
/// Rajpurkar et al. 2016); 1 for two empty texts, 0 where no word is shared.
inline double token_f1(std::string_view got, std::string_view want) {
  std::map<std::string, std::ptrdiff_t> missing;
  std::size_t num_want = 0;
  std::size_t num_got = 0;
  std::size_t num_shared = 0;
  std::istringstream expected{std::string(want)};
  for (std::string word; expected >> word; ++num_want) ++missing[word];
  std::istringstream found{std::string(got)};
  for (std::string word; found >> word; ++num_got) num_shared += missing[word]-- > 0;
  if (num_want + num_got == 0) return 1;
  return 2.0 * static_cast<double>(num_shared) / static_cast<double>(num_want + num_got);
}

}  // namespace lorapp
