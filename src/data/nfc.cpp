// Normalization form C: canonical decomposition, canonical order, canonical composition
// (Unicode Standard Annex 15).
#include <lorapp/data/unicode.hpp>

#include <algorithm>
#include <tuple>

namespace lorapp::detail {

namespace {

#include "data/unicode_compositions.inl"

// Hangul syllables compose by arithmetic: leading consonant, vowel, optional trailing consonant.
constexpr char32_t kSyllables = 0xac00, kLeading = 0x1100, kVowels = 0x1161, kTrailing = 0x11a7;
constexpr char32_t kNumLeading = 19, kNumVowels = 21, kNumTrailing = 28;
constexpr char32_t kNumSyllables = kNumLeading * kNumVowels * kNumTrailing;

bool is_syllable(char32_t code) { return code >= kSyllables && code < kSyllables + kNumSyllables; }

}  // namespace

Composition::Composition() {
  combining_.reserve(kNumCodePoints);
  for (std::size_t i = 0; i < std::size(kCombiningRuns); i += 2) {
    combining_.insert(combining_.end(), kCombiningRuns[i],
                      static_cast<std::uint8_t>(kCombiningRuns[i + 1]));
  }
  no_boundary_.resize(kNumCodePoints);
  char32_t code = 0;
  for (std::size_t i = 0; i < std::size(kDecompositions); i += 3) {
    code += kDecompositions[i];
    const Decomposition row{code, kDecompositions[i + 1], kDecompositions[i + 2]};
    decompositions_.push_back(row);
    const bool composes =
        row.second != 0 &&
        !std::binary_search(std::begin(kExclusions), std::end(kExclusions), std::uint32_t{code});
    if (composes) {
      compositions_.push_back(row);
      no_boundary_[row.second] = true;
    } else {
      no_boundary_[code] = true;
    }
  }
  std::sort(compositions_.begin(), compositions_.end(),
            [](const Decomposition& a, const Decomposition& b) {
              return std::tie(a.first, a.second) < std::tie(b.first, b.second);
            });
  for (char32_t i = 0; i < kNumVowels; ++i) no_boundary_[kVowels + i] = true;
  for (char32_t i = 1; i < kNumTrailing; ++i) no_boundary_[kTrailing + i] = true;
  for (char32_t i = 0; i < kNumCodePoints; ++i) {
    if (combining_[i] != 0) no_boundary_[i] = true;
  }
}

const Composition& Composition::instance() {
  static const Composition value;
  return value;
}

std::uint8_t Composition::combining_class(char32_t code) const { return combining_[code]; }

bool Composition::is_boundary(char32_t code) const { return !no_boundary_[code]; }

const Composition::Decomposition* Composition::find(char32_t code) const {
  const auto it =
      std::lower_bound(decompositions_.begin(), decompositions_.end(), code,
                       [](const Decomposition& row, char32_t value) { return row.code < value; });
  return it != decompositions_.end() && it->code == code ? &*it : nullptr;
}

void Composition::decompose(char32_t code, std::vector<char32_t>& out) const {
  if (is_syllable(code)) {
    const char32_t index = code - kSyllables;
    out.push_back(kLeading + index / (kNumVowels * kNumTrailing));
    out.push_back(kVowels + index / kNumTrailing % kNumVowels);
    if (index % kNumTrailing != 0) out.push_back(kTrailing + index % kNumTrailing);
    return;
  }
  const Decomposition* row = find(code);
  if (row == nullptr) {
    out.push_back(code);
    return;
  }
  decompose(row->first, out);  // at most three deep: the tables hold no cycle
  if (row->second != 0) decompose(row->second, out);
}

char32_t Composition::compose(char32_t first, char32_t second) const {
  if (first - kLeading < kNumLeading && second - kVowels < kNumVowels)
    return kSyllables + ((first - kLeading) * kNumVowels + (second - kVowels)) * kNumTrailing;
  if (is_syllable(first) && (first - kSyllables) % kNumTrailing == 0 && second > kTrailing &&
      second < kTrailing + kNumTrailing)
    return first + (second - kTrailing);
  const auto it =
      std::lower_bound(compositions_.begin(), compositions_.end(), std::tie(first, second),
                       [](const Decomposition& row, const std::tuple<char32_t&, char32_t&>& value) {
                         return std::tie(row.first, row.second) < value;
                       });
  return it != compositions_.end() && it->first == first && it->second == second ? it->code : 0;
}

std::vector<char32_t> normalize_nfc(const std::vector<char32_t>& characters) {
  const Composition& tables = Composition::instance();
  std::vector<char32_t> parts;
  for (const char32_t code : characters) tables.decompose(code, parts);

  // Canonical order: marks between two starters by their class, those of one class as they stood.
  const auto is_starter = [&](char32_t code) { return tables.combining_class(code) == 0; };
  for (auto begin = parts.begin(); begin != parts.end();) {
    begin = std::find_if_not(begin, parts.end(), is_starter);
    const auto end = std::find_if(begin, parts.end(), is_starter);
    std::stable_sort(begin, end, [&](char32_t a, char32_t b) {
      return tables.combining_class(a) < tables.combining_class(b);
    });
    begin = end;
  }

  // Each character joins the last starter unless one of its own class or a higher one, or a
  // starter, stands between.
  std::vector<char32_t> result;
  std::size_t starter = 0;
  bool has_starter = false;
  int last_class = -1;  // of what stands between the starter and here; -1: nothing
  for (const char32_t code : parts) {
    const int own_class = tables.combining_class(code);
    if (has_starter && last_class < own_class) {
      if (const char32_t joined = tables.compose(result[starter], code)) {
        result[starter] = joined;
        continue;
      }
    }
    if (own_class == 0) {
      starter = result.size();
      has_starter = true;
      last_class = -1;
    } else {
      last_class = own_class;
    }
    result.push_back(code);
  }
  return result;
}

}  // namespace lorapp::detail
