// TextPipeline: normalizers, pieces, encoding.
#include "data/text_pipeline.hpp"

#include <lorapp/data/unicode.hpp>

#include <lorapp/error.hpp>

#include <algorithm>

namespace lorapp::detail {

namespace {

using Spans = std::vector<std::pair<std::size_t, std::size_t>>;

// A real normalizer makes at most three bytes of one.
constexpr std::size_t kMaxNormalizedGrowth = 64;

AlignedText replace(const AlignedText& text, std::string_view pattern, std::string_view content) {
  const std::string_view bytes = text.text();
  AlignedText result(text.track());
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t found = std::min(bytes.find(pattern, at), bytes.size());
    result.append_copy(text, at, found);
    if (found == bytes.size()) break;
    at = found + pattern.size();
    result.append_unit(content, text.track() ? text.origin(found, at) : AlignedText::Span{});
  }
  return result;
}

AlignedText prepend(const AlignedText& text, std::string_view content) {
  AlignedText result(text.track());
  const std::size_t origin = text.track() ? text.origin_at(0) : 0;
  result.append_unit(content, {origin, origin});
  result.append_copy(text, 0, text.text().size());
  return result;
}

// Each stretch from one boundary to the next is normalized by itself; where that changes it, its
// new characters stand, each of them, for all of it.
AlignedText to_nfc(const AlignedText& text) {
  const std::string_view bytes = text.text();
  // Nothing below U+0300 (in UTF-8: before 0xcc) is ever changed or joined.
  const auto may_change = [](char c) { return static_cast<unsigned char>(c) >= 0xcc; };
  if (std::none_of(bytes.begin(), bytes.end(), may_change)) return text;
  AlignedText result(text.track());
  const Composition& tables = Composition::instance();
  std::vector<char32_t> stretch;
  for (std::size_t begin = 0; begin < bytes.size();) {
    stretch.clear();
    std::size_t end = begin;
    bool change = false;
    while (end < bytes.size()) {
      const Utf8Step step = utf8_step(bytes, end);
      const bool boundary = tables.is_boundary(step.code);
      if (boundary && end > begin) break;
      change = change || !boundary;
      stretch.push_back(step.code);
      end += step.length;
    }
    const std::vector<char32_t> normal = change ? normalize_nfc(stretch) : stretch;
    if (normal == stretch) {
      result.append_copy(text, begin, end);
    } else {
      std::string form;
      for (const char32_t code : normal) append_utf8(code, form);
      result.append_unit(form, text.track() ? text.origin(begin, end) : AlignedText::Span{});
    }
    begin = end;
  }
  return result;
}

// U+FFFD for each byte that is not UTF-8.
AlignedText repair(std::string_view text, bool track) {
  const AlignedText given = AlignedText::view(text, 0, track);
  AlignedText result(track);
  std::size_t good = 0;  // where the characters that are to be copied begin
  for (std::size_t at = 0; at < text.size();) {
    const Utf8Step step = utf8_step(text, at);
    if (step.valid()) {
      at += step.length;
      continue;
    }
    result.append_copy(given, good, at);
    result.append_unit(kReplacementCharacter, {at, at + 1});
    good = ++at;
  }
  result.append_copy(given, good, text.size());
  return result;
}

AlignedText normalized(const std::vector<Normalizer>& normalizers, const AlignedText& text) {
  const std::size_t limit = kMaxNormalizedGrowth * text.text().size() + kMaxNormalizedGrowth;
  AlignedText result = text;
  for (const Normalizer& normalizer : normalizers) {
    result = normalizer.apply(result);
    LORAPP_CHECK(result.text().size() <= limit, kTokenizerOp, "the normalizer makes ",
                 result.text().size(), " bytes of a text of ", text.text().size(),
                 "; expected at most ", kMaxNormalizedGrowth, " times as many");
  }
  return result;
}

// One call of TextPipeline::encode.
class Encoder {
 public:
  Encoder(const TextPipeline& pipeline,
          bool with_special,
          const PlaceFilter& counts,
          std::vector<int64_t>& ids,
          Spans* spans)
      : pipeline_(pipeline),
        with_special_(with_special),
        counts_(counts),
        ids_(ids),
        spans_(spans) {}

  void encode(std::string_view text) {
    const bool track = spans_ != nullptr;
    const AlignedText source =
        is_utf8(text) ? AlignedText::view(text, 0, track) : repair(text, track);
    for_each_part(source, pipeline_.raw_added, [&](const AlignedText& part, std::size_t begin) {
      if (pipeline_.normalizers.empty()) return encode_normalized(part, begin == 0);
      encode_normalized(normalized(pipeline_.normalizers, part), begin == 0);
    });
  }

 private:
  // Adds the tokens that `finder` finds, and calls `handle` for the text between them.
  template <class Handle>
  void for_each_part(const AlignedText& text,
                     const AddedTokenFinder& finder,
                     const Handle& handle) {
    const std::string_view bytes = text.text();
    PlaceFilter counts;  // in the caller's text
    if (counts_ && spans_ != nullptr) {
      counts = [&](std::size_t begin, std::size_t end) {
        const AlignedText::Span origin = text.origin(begin, end);
        return counts_(origin.first, origin.second);
      };
    }
    for (std::size_t at = 0; at < bytes.size();) {
      const AddedTokenFinder::Match match = finder.find(bytes, at, with_special_, counts);
      if (at == 0 && match.begin == bytes.size()) return handle(text, 0);
      if (match.begin > at) handle(text.slice(at, match.begin), at);
      if (!match.found()) break;
      ids_.push_back(match.id);
      if (spans_ != nullptr) spans_->push_back(text.origin(match.begin, match.end));
      at = match.end;
    }
  }

  void encode_normalized(const AlignedText& text, bool is_first) {
    for_each_part(text, pipeline_.normalized_added,
                  [&](const AlignedText& part, std::size_t begin) {
                    encode_plain(part, is_first && begin == 0);
                  });
  }

  void encode_plain(const AlignedText& text, bool is_first) {
    if (pipeline_.metaspace) return encode_metaspace(pipeline_.metaspace->apply(text, is_first));
    if (pipeline_.add_prefix_space && !text.text().starts_with(' ')) {
      const AlignedText spaced = prepend(text, " ");
      return encode_pieces(spaced, 0, spaced.text().size(), 0);
    }
    encode_pieces(text, 0, text.text().size(), 0);
  }

  void encode_metaspace(const AlignedText& text) {
    const std::string_view bytes = text.text();
    const Metaspace& metaspace = *pipeline_.metaspace;
    for (std::size_t begin = 0; begin < bytes.size();) {
      std::size_t end = bytes.size();
      if (metaspace.split) {
        const bool starts = bytes.substr(begin).starts_with(metaspace.replacement);
        const std::size_t next = begin + (starts ? metaspace.replacement.size() : 0);
        end = std::min(bytes.find(metaspace.replacement, next), end);
      }
      encode_piece(text, begin, end);
      begin = end;
    }
  }

  // Bytes [begin, end), cut by the split patterns from `level` on.
  void encode_pieces(const AlignedText& text,
                     std::size_t begin,
                     std::size_t end,
                     std::size_t level) {
    if (level == pipeline_.splits.size()) return encode_piece(text, begin, end);
    pipeline_.splits[level].split(text.text(), begin, end, [&](std::size_t at, std::size_t next) {
      encode_pieces(text, at, next, level + 1);
    });
  }

  void encode_piece(const AlignedText& text, std::size_t begin, std::size_t end) {
    symbols_.clear();
    pipeline_.bpe.encode(text.text().substr(begin, end - begin), symbols_);
    std::size_t at = begin;
    for (const BpeModel::Symbol& symbol : symbols_) {
      ids_.push_back(symbol.id);
      if (spans_ != nullptr) spans_->push_back(text.origin(at, at + symbol.length));
      at += symbol.length;
    }
  }

  const TextPipeline& pipeline_;
  bool with_special_;
  const PlaceFilter& counts_;
  std::vector<int64_t>& ids_;
  Spans* spans_;
  std::vector<BpeModel::Symbol> symbols_;
};

}  // namespace

AlignedText Normalizer::apply(const AlignedText& text) const {
  switch (kind) {
    case Kind::nfc:
      return to_nfc(text);
    case Kind::prepend:
      return text.text().empty() ? text : prepend(text, content);
    case Kind::replace:
      return replace(text, pattern, content);
  }
  return text;
}

AlignedText Metaspace::apply(const AlignedText& text, bool is_first) const {
  AlignedText result = replace(text, " ", replacement);
  const bool wanted = prepend == Prepend::always || (prepend == Prepend::first && is_first);
  if (!wanted || result.text().starts_with(replacement)) return result;
  return detail::prepend(result, replacement);
}

std::string TextPipeline::normalize(std::string_view text) const {
  return std::string(normalized(normalizers, AlignedText::view(text, 0, false)).text());
}

void TextPipeline::encode(std::string_view text,
                          bool with_special,
                          const PlaceFilter& counts,
                          std::vector<int64_t>& ids,
                          Spans* spans) const {
  try {
    Encoder(*this, with_special, counts, ids, spans).encode(text);
  } catch (const RegexError& error) {
    fail(kTokenizerOp, concat("a pattern of the pre-tokenizer: ", error.what()));
  }
}

}  // namespace lorapp::detail
