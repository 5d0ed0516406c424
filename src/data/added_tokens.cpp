// AddedTokenFinder: added tokens in a text.
#include <lorapp/data/unicode.hpp>
#include "data/vocabulary.hpp"

#include <algorithm>
#include <utility>

namespace lorapp::detail {

namespace {

// The class of the character that ends before byte `at`, 0 for none and for what is not UTF-8.
std::uint8_t class_before(std::string_view text, std::size_t at, std::size_t* begin = nullptr) {
  for (std::size_t length = 1; length <= 4 && length <= at; ++length) {
    const Utf8Step step = utf8_step(text, at - length);
    if (!step.valid() || step.length != length) continue;
    if (begin != nullptr) *begin = at - length;
    return character_classes()[step.code];
  }
  return 0;
}

std::uint8_t class_at(std::string_view text, std::size_t at, std::size_t* end = nullptr) {
  if (at >= text.size()) return 0;
  const Utf8Step step = utf8_step(text, at);
  if (!step.valid()) return 0;
  if (end != nullptr) *end = at + step.length;
  return character_classes()[step.code];
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.content.empty(); });
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  for (const AddedToken& token : tokens_)
    starts_here_[static_cast<unsigned char>(token.content.front())] = true;
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, std::size_t at) const {
  // The tokens that agree with the text so far are a stretch of the sorted list; the one that ends
  // here, if there is one, stands first in it.
  const AddedToken* longest = nullptr;
  auto first = tokens_.begin();
  auto last = tokens_.end();
  for (std::size_t depth = 0; at + depth < text.size(); ++depth) {
    const auto byte = static_cast<unsigned char>(text[at + depth]);
    const auto value = [depth](const AddedToken& token) {
      return depth < token.content.size() ? static_cast<unsigned char>(token.content[depth]) : -1;
    };
    // Where all of the stretch agrees, nothing is to be searched.
    if (first == last || value(*first) != byte || value(*(last - 1)) != byte) {
      first =
          std::partition_point(first, last, [&](const AddedToken& t) { return value(t) < byte; });
      last =
          std::partition_point(first, last, [&](const AddedToken& t) { return value(t) == byte; });
    }
    if (first == last) break;
    if (first->content.size() == depth + 1) longest = &*first;
  }
  return longest;
}

AddedTokenFinder::Match AddedTokenFinder::find(std::string_view text,
                                               std::size_t from,
                                               bool with_special,
                                               const PlaceFilter& counts) const {
  for (std::size_t at = from; !tokens_.empty() && at < text.size(); ++at) {
    if (!starts_here_[static_cast<unsigned char>(text[at])]) continue;
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) continue;
    Match match{.begin = at, .end = at + token->content.size(), .id = token->id};
    const bool within_word =
        token->single_word &&
        (((class_before(text, match.begin) | class_at(text, match.end)) & kWord) != 0);
    const bool is_plain =
        token->special && (!with_special || (counts && !counts(match.begin, match.end)));
    if (within_word || is_plain) {
      at = match.end - 1;
      continue;
    }
    if (token->strip_left) {
      std::size_t before = match.begin;
      while (match.begin > from && (class_before(text, match.begin, &before) & kWhiteSpace) != 0 &&
             before >= from)
        match.begin = before;
    }
    if (token->strip_right) {
      std::size_t behind = match.end;
      while ((class_at(text, match.end, &behind) & kWhiteSpace) != 0) match.end = behind;
    }
    return match;
  }
  return {.begin = text.size(), .end = text.size()};
}

}  // namespace lorapp::detail
