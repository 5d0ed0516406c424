// BpeModel: byte-pair encoding of one piece of text, as the Python package tokenizers does it.
// A piece starts as one token a character (or byte); the pair of neighbours whose merge ranks
// first, and stands leftmost, becomes one token, until no pair has a merge.
#pragma once

#include <lorapp/data/byte_level.hpp>
#include <lorapp/data/unicode.hpp>
#include <lorapp/error.hpp>
#include <lorapp/random_bits.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lorapp::detail {

/// So that maps keyed by strings are searched with string_views.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
template <class Value>
using StringMap = std::unordered_map<std::string, Value, StringHash, std::equal_to<>>;

/// U+2581, the visible form of a space in a sentencepiece vocabulary.
inline constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

inline std::uint64_t mix_pair(std::uint64_t key) {
  key *= kGoldenGamma;
  return key ^ (key >> 32);
}

inline std::string hex_token(unsigned byte) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

// The only character of a text, none if it is empty or has more.
inline std::optional<char32_t> only_character(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const Utf8Step step = utf8_step(text, 0);
  return step.valid() && step.length == text.size() ? std::optional(step.code) : std::nullopt;
}

class BpeModel {
 public:
  /// A token and how many bytes of the piece it spells.
  struct Symbol {
    std::int32_t id = 0;
    std::uint32_t length = 0;
  };

  /// left, right → made; the position in the list is the rank.
  struct Merge {
    std::int32_t left = 0, right = 0, made = 0;
  };

  struct Options {
    bool byte_level = false;     ///< a piece is bytes, each one character of the vocabulary
    bool byte_fallback = false;  ///< a character that has no token is spelled in tokens <0xNN>
    bool fuse_unk = false;       ///< neighbouring unknown characters are one unk token
    bool ignore_merges = false;  ///< a piece that is a token is that token, whatever the merges
    std::optional<std::int32_t> unk{};  ///< without it, unknown characters vanish
  };

  BpeModel() = default;
  /// `whole_words`: what a piece may be under ignore_merges.
  BpeModel(const StringMap<std::int32_t>& vocabulary,
           const std::vector<Merge>& merges,
           StringMap<std::int32_t> whole_words,
           const Options& options);

  /// Appends the tokens of a piece. May be called from several threads at once.
  void encode(std::string_view piece, std::vector<Symbol>& out) const;

 private:
  struct Node {  // a symbol in a doubly linked list
    std::int32_t id;
    std::uint32_t length;  // 0: merged into the one before
    std::int32_t previous, next;
  };
  struct Target {
    std::uint32_t rank = kNoMerge;
    std::int32_t made = 0;
  };
  static constexpr std::uint32_t kNoMerge = 0xffffffffu;
  static constexpr std::size_t kCachedLength =
      64;  // bytes of a word; longer ones seldom come again
  static constexpr std::size_t kCachedWords = 2048;  // a shard
  static constexpr std::size_t kShortWord = 24;      // symbols up to which a scan beats a heap
  static constexpr char32_t kLowCharacters = 0x3000;

  void encode_word(std::string_view word, std::vector<Symbol>& out) const;
  void start(std::string_view word, std::vector<Node>& nodes) const;
  void start_bytes(std::string_view word, std::vector<Node>& nodes) const;
  void start_characters(std::string_view word, std::vector<Node>& nodes) const;
  void merge_short(std::vector<Node>& nodes) const;
  void merge_long(std::vector<Node>& nodes) const;
  Target find(std::int32_t left, std::int32_t right) const;
  std::int32_t character_id(char32_t code) const;

  // Open addressing with linear probing; a key is left << 32 | right.
  struct Slot {
    std::uint64_t key = kEmpty;
    Target target;
  };
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  std::vector<Slot> slots_;
  std::size_t mask_ = 0;

  std::vector<std::int32_t> low_characters_;  // by code point; -1: none
  std::unordered_map<char32_t, std::int32_t> high_characters_;
  std::array<std::int32_t, 256> bytes_{};      // byte-level: of the byte's character
  std::array<std::int32_t, 256> fallbacks_{};  // of <0xNN>
  StringMap<std::int32_t> whole_words_;
  Options options_;
  // No token has U+2581 behind another character: the words that begin with it are encoded one by
  // one, as no merge reaches from one into the next.
  bool splits_at_space_marks_ = false;

  // Words seen before. Each shard has a lock of its own and stops growing when it is full.
  struct Shard {
    std::mutex mutex;
    StringMap<std::vector<Symbol>> words;
  };
  struct Cache {
    std::array<Shard, 64> shards;
  };
  std::unique_ptr<Cache> cache_ = std::make_unique<Cache>();
};

inline BpeModel::BpeModel(const StringMap<std::int32_t>& vocabulary,
                          const std::vector<Merge>& merges,
                          StringMap<std::int32_t> whole_words,
                          const Options& options)
    : low_characters_(kLowCharacters, -1), whole_words_(std::move(whole_words)), options_(options) {
  slots_.resize(std::bit_ceil(2 * merges.size() + 2));
  mask_ = slots_.size() - 1;
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    const std::uint64_t key = std::uint64_t(static_cast<std::uint32_t>(merge.left)) << 32 |
                              static_cast<std::uint32_t>(merge.right);
    std::size_t slot = mix_pair(key) & mask_;
    while (slots_[slot].key != kEmpty && slots_[slot].key != key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, {static_cast<std::uint32_t>(rank), merge.made}};  // given twice: the last
  }

  bool mark_inside = false;
  for (const auto& [token, id] : vocabulary) {
    for (std::size_t at = token.find(kSpaceMark); at != std::string::npos && !mark_inside;
         at = token.find(kSpaceMark, at + kSpaceMark.size())) {
      mark_inside =
          at > 0 && (at < kSpaceMark.size() ||
                     token.compare(at - kSpaceMark.size(), kSpaceMark.size(), kSpaceMark) != 0);
    }
    const auto code = only_character(token);
    if (!code) continue;
    if (*code < kLowCharacters) {
      low_characters_[*code] = id;
    } else {
      high_characters_[*code] = id;
    }
  }
  splits_at_space_marks_ = !options.byte_level && !options.ignore_merges && !mark_inside &&
                           vocabulary.contains(kSpaceMark);
  for (unsigned byte = 0; byte < 256; ++byte) {
    bytes_[byte] = character_id(kByteCharacters[byte]);
    const auto found = vocabulary.find(hex_token(byte));
    fallbacks_[byte] = found != vocabulary.end() ? found->second : -1;
  }
}

inline std::int32_t BpeModel::character_id(char32_t code) const {
  if (code < kLowCharacters) return low_characters_[code];
  const auto it = high_characters_.find(code);
  return it != high_characters_.end() ? it->second : -1;
}

inline BpeModel::Target BpeModel::find(std::int32_t left, std::int32_t right) const {
  const std::uint64_t key =
      std::uint64_t(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
  for (std::size_t slot = mix_pair(key) & mask_;; slot = (slot + 1) & mask_) {
    if (slots_[slot].key == key) return slots_[slot].target;
    if (slots_[slot].key == kEmpty) return {};
  }
}

inline void BpeModel::encode(std::string_view piece, std::vector<Symbol>& out) const {
  if (!splits_at_space_marks_) return encode_word(piece, out);
  for (std::size_t begin = 0; begin < piece.size();) {
    // A word: marks, then all up to the next mark.
    std::size_t end = begin;
    while (piece.substr(end).starts_with(kSpaceMark)) end += kSpaceMark.size();
    end = std::min(piece.find(kSpaceMark, end), piece.size());
    encode_word(piece.substr(begin, end - begin), out);
    begin = end;
  }
}

inline void BpeModel::encode_word(std::string_view word, std::vector<Symbol>& out) const {
  if (word.empty()) return;
  const std::size_t hash = StringHash{}(word);
  Shard* shard =
      word.size() <= kCachedLength ? &cache_->shards[hash % cache_->shards.size()] : nullptr;
  if (shard != nullptr) {
    const std::lock_guard lock(shard->mutex);
    if (const auto it = shard->words.find(word); it != shard->words.end()) {
      out.insert(out.end(), it->second.begin(), it->second.end());
      return;
    }
  }
  const std::size_t first = out.size();
  const auto whole = options_.ignore_merges ? whole_words_.find(word) : whole_words_.end();
  if (whole != whole_words_.end()) {
    out.push_back({whole->second, static_cast<std::uint32_t>(word.size())});
  } else {
    LORAPP_CHECK(word.size() < std::size_t(std::numeric_limits<std::int32_t>::max()), "tokenizer",
                 "a word of ", word.size(),
                 " bytes is too long to encode; expected less than 2 GiB");
    std::vector<Node> nodes;
    start(word, nodes);
    if (nodes.size() <= kShortWord) {
      merge_short(nodes);
    } else {
      merge_long(nodes);
    }
    for (const Node& node : nodes) {
      if (node.length > 0) out.push_back({node.id, node.length});
    }
  }
  if (shard != nullptr) {
    const std::lock_guard lock(shard->mutex);
    if (shard->words.size() < kCachedWords) {
      shard->words.try_emplace(std::string(word), out.begin() + static_cast<std::ptrdiff_t>(first),
                               out.end());
    }
  }
}

inline void BpeModel::start(std::string_view word, std::vector<Node>& nodes) const {
  nodes.reserve(word.size());
  if (options_.byte_level) {
    start_bytes(word, nodes);
  } else {
    start_characters(word, nodes);
  }
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    nodes[i].previous = static_cast<std::int32_t>(i) - 1;
    nodes[i].next = i + 1 < nodes.size() ? static_cast<std::int32_t>(i) + 1 : -1;
  }
}

inline void BpeModel::start_bytes(std::string_view word, std::vector<Node>& nodes) const {
  std::uint32_t unknown = 0;  // bytes of the unk token that is being made
  const auto flush = [&] {
    if (unknown > 0) nodes.push_back({*options_.unk, unknown, -1, -1});
    unknown = 0;
  };
  for (const char c : word) {
    const std::int32_t id = bytes_[static_cast<unsigned char>(c)];
    if (id >= 0) {
      flush();
      nodes.push_back({id, 1, -1, -1});
    } else if (options_.unk) {
      if (!options_.fuse_unk) flush();
      ++unknown;
    }
  }
  flush();
}

inline void BpeModel::start_characters(std::string_view word, std::vector<Node>& nodes) const {
  std::uint32_t unknown = 0;
  const auto flush = [&] {
    if (unknown > 0) nodes.push_back({*options_.unk, unknown, -1, -1});
    unknown = 0;
  };
  for (std::size_t at = 0; at < word.size();) {
    const Utf8Step step = utf8_step(word, at);
    const std::string_view bytes = word.substr(at, step.length);
    at += step.length;
    const std::int32_t id = step.valid() ? character_id(step.code) : -1;
    if (id >= 0) {
      flush();
      nodes.push_back({id, static_cast<std::uint32_t>(step.length), -1, -1});
      continue;
    }
    const auto fallback = [&](char c) { return fallbacks_[static_cast<unsigned char>(c)]; };
    if (options_.byte_fallback &&
        std::all_of(bytes.begin(), bytes.end(), [&](char c) { return fallback(c) >= 0; })) {
      // An unk token that is being made comes behind these, as in the reference.
      for (const char c : bytes) nodes.push_back({fallback(c), 1, -1, -1});
    } else if (options_.unk) {
      if (!options_.fuse_unk) flush();
      unknown += static_cast<std::uint32_t>(step.length);
    }
  }
  flush();
}

inline void BpeModel::merge_short(std::vector<Node>& nodes) const {
  std::size_t count = nodes.size();
  if (count < 2) return;
  std::array<Target, kShortWord> targets;  // of node i and the one behind it
  for (std::size_t i = 0; i + 1 < count; ++i) targets[i] = find(nodes[i].id, nodes[i + 1].id);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (targets[i].rank < targets[best].rank) best = i;
    }
    if (targets[best].rank == kNoMerge) break;
    nodes[best].id = targets[best].made;
    nodes[best].length += nodes[best + 1].length;
    nodes.erase(nodes.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    --count;
    for (std::size_t i = best + 1; i + 1 < count; ++i) targets[i] = targets[i + 1];
    if (best + 1 < count) targets[best] = find(nodes[best].id, nodes[best + 1].id);
    if (best > 0) targets[best - 1] = find(nodes[best - 1].id, nodes[best].id);
  }
}

inline void BpeModel::merge_long(std::vector<Node>& nodes) const {
  struct Candidate {
    std::uint32_t rank;
    std::int32_t at, made;
    bool operator>(const Candidate& other) const {
      return std::tie(rank, at) > std::tie(other.rank, other.at);
    }
  };
  std::vector<Candidate> first;
  const auto candidate = [&](std::int32_t at) -> std::optional<Candidate> {
    const Node& node = nodes[static_cast<std::size_t>(at)];
    const Target target = find(node.id, nodes[static_cast<std::size_t>(node.next)].id);
    if (target.rank == kNoMerge) return std::nullopt;
    return Candidate{target.rank, at, target.made};
  };
  for (std::size_t i = 0; i + 1 < nodes.size(); ++i) {
    if (const auto found = candidate(static_cast<std::int32_t>(i))) first.push_back(*found);
  }
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue(std::greater<>{},
                                                                               std::move(first));
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& node = nodes[static_cast<std::size_t>(top.at)];
    if (node.length == 0 || node.next < 0) continue;
    Node& right = nodes[static_cast<std::size_t>(node.next)];
    const Target now = find(node.id, right.id);
    if (now.rank == kNoMerge || now.made != top.made) continue;  // one of the two has changed since
    node.id = top.made;
    node.length += right.length;
    right.length = 0;
    node.next = right.next;
    if (node.next >= 0) nodes[static_cast<std::size_t>(node.next)].previous = top.at;
    if (node.previous >= 0) {
      if (const auto found = candidate(node.previous)) queue.push(*found);
    }
    if (node.next >= 0) {
      if (const auto found = candidate(top.at)) queue.push(*found);
    }
  }
}

}  // namespace lorapp::detail
