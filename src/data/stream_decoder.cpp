// Decoding: ids back to text, one at a time; decode() is the same machine run to the end.
#include "data/tokenizer_impl.hpp"

#include <utility>

namespace lorapp {

namespace {

using detail::kReplacementCharacter;
using detail::kSpaceMark;

// Well-formed UTF-8 in the sense of the Unicode standard, table 3-7: no overlong forms, no
// surrogates.
bool is_utf8(std::string_view bytes) {
  for (std::size_t i = 0; i < bytes.size();) {
    const auto at = [&](std::size_t k) { return static_cast<unsigned char>(bytes[k]); };
    const unsigned char lead = at(i);
    const std::size_t length = lead < 0x80                   ? 1
                               : lead >= 0xc2 && lead < 0xe0 ? 2
                               : lead >= 0xe0 && lead < 0xf0 ? 3
                               : lead >= 0xf0 && lead < 0xf5 ? 4
                                                             : 0;
    if (length == 0 || i + length > bytes.size()) return false;
    for (std::size_t k = 1; k < length; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return false;
    }
    const unsigned char second = length > 1 ? at(i + 1) : 0;
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second >= 0xa0) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second >= 0x90)) {
      return false;
    }
    i += length;
  }
  return true;
}

void append_with_spaces(std::string_view token, std::string& text) {
  for (std::size_t at = 0; at < token.size();) {
    const std::size_t mark = token.find(kSpaceMark, at);
    text.append(token.substr(at, mark == std::string_view::npos ? mark : mark - at));
    if (mark == std::string_view::npos) break;
    text += ' ';
    at = mark + kSpaceMark.size();
  }
}

}  // namespace

struct Tokenizer::StreamDecoder::State {
  Tokenizer tokenizer;
  bool skip_special_tokens;
  std::string run;       // bytes of byte tokens, until the run ends and shows whether it is UTF-8
  bool at_start = true;  // no text yet: one leading space is still to be dropped

  void end_run(std::string& text) {
    if (is_utf8(run)) {
      text += run;
    } else {
      for (std::size_t i = 0; i < run.size(); ++i) text += kReplacementCharacter;
    }
    run.clear();
  }

  void drop_leading_space(std::string& text) {
    if (!at_start || text.empty()) return;
    at_start = false;
    if (tokenizer.impl_->prefix_space && text.front() == ' ') text.erase(0, 1);
  }

  std::string push(int64_t id) {
    const detail::VocabularyEntry& entry = tokenizer.impl_->entry(id);
    std::string text;
    if (entry.special && skip_special_tokens) return text;
    if (entry.byte) {
      run += *entry.byte;
      return text;
    }
    end_run(text);
    append_with_spaces(entry.token, text);
    drop_leading_space(text);
    return text;
  }

  std::string finish() {
    std::string text;
    end_run(text);
    drop_leading_space(text);
    at_start = true;
    return text;
  }
};

Tokenizer::StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : state_(std::make_unique<State>(State{std::move(tokenizer), skip_special_tokens, {}, true})) {}
Tokenizer::StreamDecoder::~StreamDecoder() = default;
Tokenizer::StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
Tokenizer::StreamDecoder& Tokenizer::StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string Tokenizer::StreamDecoder::push(int64_t id) { return state_->push(id); }
std::string Tokenizer::StreamDecoder::finish() { return state_->finish(); }

std::string Tokenizer::decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const {
  StreamDecoder decoder(*this, skip_special_tokens);
  std::string text;
  for (const int64_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

}  // namespace lorapp
