// TextPipeline: text → ids as a tokenizer.json describes it: added tokens are cut out, the rest is
// normalized, cut into pieces, and each piece encoded by the BPE model.
#pragma once

#include <lorapp/data/bpe.hpp>
#include <lorapp/data/splitter.hpp>

#include "data/aligned_text.hpp"
#include "data/vocabulary.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

struct Normalizer {
  enum class Kind {
    nfc,      ///< Unicode normalization form C
    prepend,  ///< puts `content` before a text that is not empty
    replace,  ///< puts `content` in the place of each `pattern`
  };
  Kind kind = Kind::nfc;
  std::string pattern{};
  std::string content{};

  AlignedText apply(const AlignedText& text) const;
};

/// Every space becomes `replacement`, which is also put before a text that does not begin with it.
struct Metaspace {
  enum class Prepend { always, first, never };

  std::string replacement{kSpaceMark};
  Prepend prepend = Prepend::always;  ///< first: only where the caller's text begins
  bool split = true;                  ///< a piece begins at each `replacement`

  AlignedText apply(const AlignedText& text, bool is_first) const;
};

struct TextPipeline {
  std::vector<Normalizer> normalizers;
  std::optional<Metaspace> metaspace;
  std::vector<Splitter> splits;   ///< in this order, each within the pieces of the one before
  bool byte_level = false;        ///< pieces are bytes to the model
  bool add_prefix_space = false;  ///< a space goes before a text that does not begin with one
  BpeModel bpe;
  AddedTokenFinder raw_added;         ///< found in the text as it is given
  AddedTokenFinder normalized_added;  ///< found in the normalized text

  /// The text of an added token in normalized text.
  std::string normalize(std::string_view text) const;

  /// Appends the ids of `text`, and their spans of it if `spans` is not null. A byte that is not
  /// UTF-8 counts as U+FFFD. Special tokens are looked for if `with_special`, and are found where
  /// `counts` (which needs spans), if there is one, allows it.
  void encode(std::string_view text,
              bool with_special,
              const PlaceFilter& counts,
              std::vector<int64_t>& ids,
              std::vector<std::pair<std::size_t, std::size_t>>* spans) const;
};

}  // namespace lorapp::detail
