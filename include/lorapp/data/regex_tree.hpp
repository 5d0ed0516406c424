// The tree of a tokenizer's regular expression.
#pragma once

#include <lorapp/data/character_set.hpp>

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <vector>

namespace lorapp::detail {

/// What is wrong with a regular expression.
class RegexError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

struct RegexNode {
  enum class Kind {
    set,         ///< one character
    sequence,    ///< parts, one after the other
    choice,      ///< the first part that leads to a match
    repeat,      ///< parts[0], least to most times
    look,        ///< parts[0] matches here (not at all if `negated`), ahead or behind
    atomic,      ///< parts[0], whose choices are final
    line_begin,  ///< ^
    line_end,    ///< $
    text_begin,  ///< \A
    text_end,    ///< \z
  };
  enum class Greed { greedy, lazy, possessive };
  static constexpr std::size_t kNoLimit = ~std::size_t{0};

  Kind kind = Kind::sequence;
  CharacterSet set{};
  std::vector<RegexNode> parts{};
  std::size_t least = 1, most = 1;
  Greed greed = Greed::greedy;
  bool negated = false;
  bool behind = false;

  /// True if it may match without taking a character.
  bool may_be_empty() const {
    switch (kind) {
      case Kind::set:
        return false;
      case Kind::sequence:
        return std::all_of(parts.begin(), parts.end(),
                           [](const auto& p) { return p.may_be_empty(); });
      case Kind::choice:
        return std::any_of(parts.begin(), parts.end(),
                           [](const auto& p) { return p.may_be_empty(); });
      case Kind::repeat:
        return least == 0 || parts[0].may_be_empty();
      case Kind::atomic:
        return parts[0].may_be_empty();
      default:
        return true;
    }
  }
};

}  // namespace lorapp::detail
