// Tokenizer: encoding, by a tokenizer.json's pipeline or through sentencepiece, and the places of
// sentencepiece's tokens in the text.
#include "atomic_file.hpp"
#include "data/tokenizer_impl.hpp"

#include <algorithm>
#include <utility>

namespace lorapp {

namespace {

using detail::AddedTokenFinder;
using detail::kSpaceMark;
using detail::kTokenizerOp;
using sentencepiece::SentencePieceProcessor;
using Spans = std::vector<std::pair<std::size_t, std::size_t>>;

// ModelProto { normalizer_spec (field 3) { add_dummy_prefix (field 3) = false } }: protobuf merges
// a message that is given twice, so these bytes behind a model switch its leading space off.
constexpr std::string_view kNoDummyPrefix("\x1a\x02\x18\x00", 4);

// Length of the UTF-8 character that this byte begins; 1 for a byte that begins none.
std::size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte >= 0xf0) return 4;
  if (byte >= 0xe0) return 3;
  return byte >= 0xc0 ? 2 : 1;
}

void check_encoded(const sentencepiece::util::Status& status, std::string_view text) {
  LORAPP_CHECK(status.ok(), kTokenizerOp, "sentencepiece cannot encode a text of ", text.size(),
               " bytes: ", status.message());
}

// Sentencepiece gives the whole character to the last of the tokens that spell it, and nothing to
// those before. Hands tokens [first, last] their part: a byte each where they spell the original's
// bytes, else the character that begins there.
void share_character(const std::vector<detail::VocabularyEntry>& vocabulary,
                     const std::vector<int64_t>& ids,
                     std::string_view text,
                     std::size_t first,
                     std::size_t last,
                     std::size_t offset,
                     Spans& spans) {
  const auto [begin, end] = spans[last];
  bool byte_for_byte = last - first + 1 == end - begin;
  for (std::size_t i = first; i <= last && byte_for_byte; ++i) {
    const auto& byte = vocabulary[static_cast<std::size_t>(ids[i])].byte;
    byte_for_byte = byte && *byte == text[begin - offset + i - first];
  }
  if (byte_for_byte) {
    for (std::size_t i = first; i <= last; ++i)
      spans[i] = {begin + i - first, begin + i - first + 1};
    return;
  }
  const std::size_t character_end = std::min(end, begin + character_length(text[begin - offset]));
  for (std::size_t i = first; i < last; ++i) spans[i] = {begin, character_end};
}

// Appends the ids of one piece of plain text, which begins at `offset` of the caller's.
void append_plain(const SentencePieceProcessor& model,
                  std::string_view text,
                  std::vector<int64_t>& ids) {
  std::vector<int> found;
  check_encoded(model.Encode(text, &found), text);
  ids.insert(ids.end(), found.begin(), found.end());
}

// The same with the span of each token.
void append_plain(const SentencePieceProcessor& model,
                  const std::vector<detail::VocabularyEntry>& vocabulary,
                  std::string_view text,
                  std::size_t offset,
                  Tokenizer::Encoding& encoding) {
  sentencepiece::ImmutableSentencePieceText found;
  check_encoded(model.Encode(text, found.mutable_proto()), text);
  auto& [ids, spans] = encoding;
  const std::size_t start = ids.size();
  std::size_t waiting = 0;  // tokens just before this one that have no byte of their own yet
  const std::size_t count = found.pieces_size();
  for (std::size_t i = 0; i < count; ++i) {
    const auto piece = found.pieces(static_cast<int>(i));
    ids.push_back(piece.id());
    spans.emplace_back(offset + piece.begin(), offset + piece.end());
    if (piece.begin() == piece.end()) {
      // The lone space that sentencepiece puts before a text is no character of it.
      waiting = ids.size() - 1 == start && piece.piece() == kSpaceMark ? 0 : waiting + 1;
      continue;
    }
    const std::size_t last = ids.size() - 1;
    const bool same_place = waiting > 0 && spans[last - waiting].first == spans[last].first;
    if (same_place) share_character(vocabulary, ids, text, last - waiting, last, offset, spans);
    waiting = 0;
  }
}

// The ids between bos and eos, by sentencepiece.
void encode_by_model(const Tokenizer::Impl& impl,
                     std::string_view text,
                     bool parse_special,
                     const detail::PlaceFilter& counts,
                     bool with_spans,
                     Tokenizer::Encoding& encoding) {
  const AddedTokenFinder& finder = parse_special ? impl.all_added : impl.plain_added;
  for (std::size_t at = 0; at < text.size();) {
    const AddedTokenFinder::Match match = finder.find(text, at, true, counts);
    const std::string_view plain = text.substr(at, match.begin - at);
    if (!plain.empty()) {
      const bool wants_space = impl.prefix_space && (at == 0 || impl.legacy);
      const auto& model =
          wants_space || !impl.model_puts_space ? impl.model : impl.model_without_prefix();
      if (with_spans) {
        append_plain(model, impl.vocabulary, plain, at, encoding);
      } else {
        append_plain(model, plain, encoding.ids);
      }
    }
    if (!match.found()) break;
    encoding.ids.push_back(match.id);
    if (with_spans) encoding.spans.emplace_back(match.begin, match.end);
    at = match.end;
  }
}

Tokenizer::Encoding encode_text(const Tokenizer::Impl& impl,
                                std::string_view text,
                                bool parse_special,
                                const detail::PlaceFilter& counts,
                                bool with_spans,
                                bool add_special_tokens) {
  Tokenizer::Encoding encoding;
  const auto push = [&](int64_t id, std::size_t at) {
    encoding.ids.push_back(id);
    if (with_spans) encoding.spans.emplace_back(at, at);
  };
  if (add_special_tokens && impl.add_bos) push(*impl.bos, 0);
  if (impl.json) {
    impl.json->pipeline.encode(text, parse_special, counts, encoding.ids,
                               with_spans ? &encoding.spans : nullptr);
  } else {
    encode_by_model(impl, text, parse_special, counts, with_spans, encoding);
  }
  if (add_special_tokens && impl.add_eos) push(*impl.eos, text.size());
  return encoding;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

const detail::VocabularyEntry& Tokenizer::Impl::entry(int64_t id) const {
  const bool known = id >= 0 && id < static_cast<int64_t>(vocabulary.size()) &&
                     vocabulary[static_cast<std::size_t>(id)].known;
  LORAPP_CHECK(known, kTokenizerOp, "id ", id, " has no token; the vocabulary has ",
               vocabulary.size());
  return vocabulary[static_cast<std::size_t>(id)];
}

std::optional<int64_t> Tokenizer::Impl::find_token(std::string_view token) const {
  if (const auto it = added_ids.find(std::string(token)); it != added_ids.end()) return it->second;
  if (json) {
    const auto it = json->ids.find(token);
    const bool found =
        it != json->ids.end() && vocabulary[static_cast<std::size_t>(it->second)].token == token;
    return found ? std::optional<int64_t>(it->second) : std::nullopt;
  }
  // The model answers unk for what it does not know, and may know a piece under a name the
  // configuration replaced.
  const int id = model.PieceToId(token);
  const bool found = id >= 0 && id < model.GetPieceSize() &&
                     vocabulary[static_cast<std::size_t>(id)].token == token;
  return found ? std::optional<int64_t>(id) : std::nullopt;
}

const SentencePieceProcessor& Tokenizer::Impl::model_without_prefix() const {
  std::call_once(bare_once_, [this] {
    auto bare = std::make_unique<SentencePieceProcessor>();
    const auto status =
        bare->LoadFromSerializedProto(files.at("tokenizer.model") + std::string(kNoDummyPrefix));
    LORAPP_CHECK(status.ok(), kTokenizerOp,
                 "tokenizer.model without its leading space: ", status.message());
    bare_ = std::move(bare);
  });
  return *bare_;
}

std::vector<int64_t> Tokenizer::encode(std::string_view text, bool add_special_tokens) const {
  return encode_text(*impl_, text, false, {}, false, add_special_tokens).ids;
}

std::vector<int64_t> Tokenizer::encode_with_special(std::string_view text,
                                                    bool add_special_tokens) const {
  return encode_text(*impl_, text, true, {}, false, add_special_tokens).ids;
}

Tokenizer::Encoding Tokenizer::encode_with_spans(std::string_view text,
                                                 bool add_special_tokens) const {
  return encode_text(*impl_, text, false, {}, true, add_special_tokens);
}

Tokenizer::Encoding Tokenizer::encode_markup(std::string_view text,
                                             const SpecialPlaces& is_special) const {
  return encode_text(*impl_, text, true, is_special, true, false);
}

std::optional<int64_t> Tokenizer::bos_id() const { return impl_->bos; }
std::optional<int64_t> Tokenizer::eos_id() const { return impl_->eos; }
std::optional<int64_t> Tokenizer::unk_id() const { return impl_->unk; }
std::optional<int64_t> Tokenizer::pad_id() const { return impl_->pad ? impl_->pad : impl_->eos; }
bool Tokenizer::add_bos() const { return impl_->add_bos; }
bool Tokenizer::add_eos() const { return impl_->add_eos; }
int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->vocabulary.size()); }
std::string Tokenizer::id_to_token(int64_t id) const { return impl_->entry(id).token; }
std::optional<int64_t> Tokenizer::token_to_id(std::string_view token) const {
  return impl_->find_token(token);
}
bool Tokenizer::is_special(int64_t id) const { return impl_->entry(id).special; }

void Tokenizer::save_pretrained(const std::filesystem::path& directory) const {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  LORAPP_CHECK(!error, kTokenizerOp, directory.string(),
               ": cannot be made a folder: ", error.message());
  for (const auto& [name, bytes] : impl_->files)
    detail::write_file_atomically(directory / name, bytes);
}

}  // namespace lorapp
