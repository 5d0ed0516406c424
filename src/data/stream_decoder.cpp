// Decoding: ids back to text, one at a time; decode() is the same machine run to the end.
#include <lorapp/data/unicode.hpp>
#include "data/token_decoder.hpp"
#include "data/tokenizer_impl.hpp"

#include <optional>
#include <utility>

namespace lorapp {

namespace {

using detail::kReplacementCharacter;
using detail::kSpaceMark;

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
  std::optional<detail::TokenDecoder> steps;  // of a tokenizer.json: it does all the work

  State(Tokenizer given, bool skip) : tokenizer(std::move(given)), skip_special_tokens(skip) {
    if (const auto& json = tokenizer.impl_->json) steps.emplace(json->decoder);
  }

  void end_run(std::string& text) {
    if (detail::is_utf8(run)) {
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
    if (steps) {
      const auto& decoded_as = tokenizer.impl_->json->decoded_as;
      const auto it = decoded_as.find(id);
      return steps->push(it != decoded_as.end() ? it->second : entry.token);
    }
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
    if (steps) return steps->finish();
    std::string text;
    end_run(text);
    drop_leading_space(text);
    at_start = true;
    return text;
  }
};

Tokenizer::StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : state_(std::make_unique<State>(std::move(tokenizer), skip_special_tokens)) {}
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
