// Unicode for tokenizers: UTF-8 a character at a time, character classes, and the parts of a
// canonical normalization. The classes are Unicode 16's and the normalization Unicode 9's, as in
// the Python package tokenizers (make_unicode_tables.py).
#pragma once

#include <lorapp/export.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp::detail {

inline constexpr char32_t kNumCodePoints = 0x110000;
/// U+FFFD in UTF-8.
inline constexpr std::string_view kReplacementCharacter = "\xef\xbf\xbd";
inline constexpr char32_t kReplacementCode = 0xfffd;

/// One step through UTF-8 in the sense of the Unicode standard, table 3-7: no overlong forms, no
/// surrogates.
struct Utf8Step {
  enum class Kind {
    character,   ///< `length` bytes are the character `code`
    invalid,     ///< `length` bytes are the longest beginning of a character that goes wrong
    incomplete,  ///< the text ends within a character: `length` bytes are its beginning
  };
  Kind kind = Kind::character;
  std::size_t length = 1;
  char32_t code = 0;

  bool valid() const { return kind == Kind::character; }
};

/// The step at byte `at` < text.size().
inline Utf8Step utf8_step(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t k) { return static_cast<unsigned char>(text[at + k]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {.code = lead};
  const std::size_t length = lead >= 0xc2 && lead < 0xe0   ? 2
                             : lead >= 0xe0 && lead < 0xf0 ? 3
                             : lead >= 0xf0 && lead < 0xf5 ? 4
                                                           : 0;
  if (length == 0) return {.kind = Utf8Step::Kind::invalid};
  char32_t code = lead & (0xffu >> (length + 1));
  for (std::size_t k = 1; k < length; ++k) {
    if (at + k >= text.size()) return {.kind = Utf8Step::Kind::incomplete, .length = k};
    const unsigned char next = byte(k);
    bool fits = (next & 0xc0) == 0x80;
    if (k == 1) {
      fits = fits && !(lead == 0xe0 && next < 0xa0) && !(lead == 0xed && next >= 0xa0) &&
             !(lead == 0xf0 && next < 0x90) && !(lead == 0xf4 && next >= 0x90);
    }
    if (!fits) return {.kind = Utf8Step::Kind::invalid, .length = k};
    code = code << 6 | (next & 0x3fu);
  }
  return {.length = length, .code = code};
}

/// True if every byte belongs to a character.
LORAPP_API bool is_utf8(std::string_view text);

/// Appends the UTF-8 form of a code point that is no surrogate.
LORAPP_API void append_utf8(char32_t code, std::string& text);

/// Classes of a character; a character may be in several.
enum CharacterClass : std::uint8_t {
  kLetter = 1,        ///< \p{L}
  kNumber = 2,        ///< \p{N}
  kWhiteSpace = 4,    ///< \s
  kWord = 8,          ///< \w of Rust's regular expressions, which find added tokens and words
  kRegexWord = 16,    ///< \w in a set of Oniguruma's, which a Split has
  kPunctuation = 32,  ///< ASCII's, and P of an older Unicode
};

/// The class of every code point, kNumCodePoints entries; made at first use.
LORAPP_API const std::uint8_t* character_classes();

/// The general category of a character, in the order of the table.
enum class Category : std::uint8_t {
  Lu,
  Ll,
  Lt,
  Lm,
  Lo,
  Mn,
  Mc,
  Me,
  Nd,
  Nl,
  No,
  Pc,
  Pd,
  Ps,
  Pe,
  Pi,
  Pf,
  Po,
  Sm,
  Sc,
  Sk,
  So,
  Zs,
  Zl,
  Zp,
  Cc,
  Cf,
  Cs,
  Co,
  Cn
};
inline constexpr std::string_view kCategoryNames[] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};

/// The category of every code point, kNumCodePoints entries; made at first use.
LORAPP_API const Category* general_categories();

/// Appends a character in upper or lower case: sometimes several, as "SS" for U+00DF.
LORAPP_API void append_cased(char32_t code, bool upper, std::string& text);

/// Canonical decomposition and composition, as NFC needs them.
class Composition {
 public:
  /// The tables, made at first use.
  static const Composition& instance();

  std::uint8_t combining_class(char32_t code) const;

  /// True if NFC never changes the character nor joins it to what stands before: a text may be
  /// normalized from here on by itself.
  bool is_boundary(char32_t code) const;

  /// Appends the full canonical decomposition.
  void decompose(char32_t code, std::vector<char32_t>& out) const;

  /// The character that two compose to, 0 if they do not.
  char32_t compose(char32_t first, char32_t second) const;

 private:
  Composition();

  struct Decomposition {
    char32_t code, first, second;
  };
  const Decomposition* find(char32_t code) const;

  std::vector<std::uint8_t> combining_;        // per code point
  std::vector<bool> no_boundary_;              // per code point
  std::vector<Decomposition> decompositions_;  // by code
  std::vector<Decomposition> compositions_;    // by (first, second)
};

/// NFC of a few characters that a boundary (or the text's beginning) precedes.
LORAPP_API std::vector<char32_t> normalize_nfc(const std::vector<char32_t>& characters);

}  // namespace lorapp::detail
