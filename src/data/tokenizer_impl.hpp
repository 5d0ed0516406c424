// What a Tokenizer holds; only the files of this folder that include it know of sentencepiece.
// Written once by from_pretrained, read by many threads afterwards.
#pragma once

#include <lorapp/data/tokenizer.hpp>

#include <sentencepiece_processor.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lorapp {

namespace detail {

inline constexpr std::string_view kTokenizerOp = "tokenizer";
/// U+2581, the visible form of a space in a sentencepiece vocabulary.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";
inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";

/// A token of the configuration, beside or on top of the model's pieces.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool special = true;
  bool strip_left = false;   ///< takes the white space before it (HF: lstrip)
  bool strip_right = false;  ///< takes the white space behind it (HF: rstrip)
};

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
  /// The first match at or behind `from`; without one, an empty place at the end of the text.
  Match find(std::string_view text, std::size_t from) const;

 private:
  std::vector<AddedToken> tokens_;       // longest first
  std::array<bool, 256> starts_here_{};  // by first byte
};

/// What the vocabulary says about one id.
struct VocabularyEntry {
  std::string token;
  bool known = false;  ///< false for a gap below an added token's id
  bool special = false;
  std::optional<char> byte;  ///< of a byte token <0xNN>
};

}  // namespace detail

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor model;
  std::map<std::string, std::string> files;  // name → bytes, as read

  std::vector<detail::VocabularyEntry> vocabulary;
  std::unordered_map<std::string, int64_t> added_ids;
  detail::AddedTokenFinder plain_added;  // matched in any text: added behind the model, not special
  detail::AddedTokenFinder all_added;    // matched where special tokens are asked for

  std::optional<int64_t> bos, eos, unk, pad;
  bool add_bos = true;
  bool add_eos = false;
  bool legacy = false;
  bool model_puts_space = true;  // the model puts a space before a text
  bool prefix_space = true;      // it does so here, and decoding drops it

  const detail::VocabularyEntry& entry(int64_t id) const;
  std::optional<int64_t> find_token(std::string_view token) const;

  /// The same model without the space before a text; made at first need.
  const sentencepiece::SentencePieceProcessor& model_without_prefix() const;

 private:
  mutable std::once_flag bare_once_;
  mutable std::unique_ptr<sentencepiece::SentencePieceProcessor> bare_;
};

}  // namespace lorapp
