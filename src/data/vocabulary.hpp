// What every tokenizer holds beside its model: the written form of each id, and the tokens that are
// found in a text before the model sees it.
#pragma once

#include <lorapp/data/bpe.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace lorapp::detail {

inline constexpr std::string_view kTokenizerOp = "tokenizer";

/// A token of the configuration, beside or on top of the model's pieces.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = true;
  bool strip_left = false;   ///< takes the white space before it (HF: lstrip)
  bool strip_right = false;  ///< takes the white space behind it (HF: rstrip)
  bool single_word = false;  ///< counts only where no \w stands next to it
  bool normalized = false;   ///< looked for in the normalized text
};

/// Says whether a special token written at bytes [begin, end) of the text counts as one.
using PlaceFilter = std::function<bool(std::size_t begin, std::size_t end)>;

/// Finds added tokens in a text: leftmost first, the longest where several begin at one place.
class AddedTokenFinder {
 public:
  AddedTokenFinder() = default;
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Match {
    std::size_t begin = 0;
    std::size_t end = 0;
    int64_t id = -1;

    bool found() const { return id >= 0; }
  };
  /// The first match at or behind `from`; without one, an empty place at the end of the text. What
  /// is not to be found (a special token without `with_special` or where `counts` says no, part of
  /// a word) is plain text, and the search goes on behind it.
  Match find(std::string_view text,
             std::size_t from,
             bool with_special = true,
             const PlaceFilter& counts = {}) const;

 private:
  const AddedToken* longest_at(std::string_view text, std::size_t at) const;

  std::vector<AddedToken> tokens_;       // by content
  std::array<bool, 256> starts_here_{};  // by first byte
};

/// What the vocabulary says about one id.
struct VocabularyEntry {
  std::string token;
  bool known = false;  ///< false for a gap below an added token's id
  bool special = false;
  std::optional<char> byte;  ///< of a byte token <0xNN>
};

}  // namespace lorapp::detail
