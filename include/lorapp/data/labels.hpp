// From a rendered row to an Example: which tokens stay, and which are scored.
// Convention: bos + text + eos is built first, then cut at max_length from the end.
#pragma once

#include <lorapp/data/chat_template.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

/// True if [begin, end) shares a byte with one of `spans` (which are in order and do not overlap).
inline bool lies_in_response(std::size_t begin,
                             std::size_t end,
                             std::span<const RenderedPrompt::Span> spans) {
  return std::any_of(spans.begin(), spans.end(), [&](const RenderedPrompt::Span& span) {
    return span.response && std::max(begin, span.begin) < std::min(end, span.end);
  });
}

namespace detail {

/// Cuts at max_length; whatever stands first is not scored.
inline LabeledExample finished_example(Example example, int64_t max_length) {
  LabeledExample result{.example = std::move(example)};
  auto& [ids, labels] = result.example;
  result.cut = std::cmp_greater(ids.size(), max_length);
  if (result.cut) {
    ids.resize(static_cast<std::size_t>(max_length));
    labels.resize(ids.size());
  }
  if (!labels.empty()) labels.front() = kIgnoreLabel;
  return result;
}

inline void check_max_length(const TokenizeOptions& options) {
  LORAPP_CHECK(options.max_length >= 1, "tokenize", "max_length is ", options.max_length,
               ", expected 1 or more");
}

}  // namespace detail

/// Tokenizes and labels one row. With train_on_inputs every token of the text is scored, otherwise
/// those with a byte in a response span; eos counts as response; bos, and whatever stands first, is
/// not scored.
///
/// bos is there if the tokenizer puts one (add_bos), eos if `append_eos` asks for it.
inline LabeledExample make_example(const Tokenizer& tokenizer,
                                   const RenderedPrompt& prompt,
                                   const TokenizeOptions& options) {
  detail::check_max_length(options);
  LORAPP_CHECK(!options.append_eos || tokenizer.eos_id(), "tokenize",
               "append_eos asks for an end token, but the tokenizer has none");
  Tokenizer::Encoding encoding;
  if (options.train_on_inputs) {
    encoding.ids = tokenizer.encode(prompt.text, false);
  } else {
    encoding = tokenizer.encode_with_spans(prompt.text, false);
  }

  Example example;
  std::vector<int64_t>& ids = example.ids;  // no binding: clang 14 captures none
  std::vector<int64_t>& labels = example.labels;
  const std::size_t capacity = encoding.ids.size() + 2;
  ids.reserve(capacity);
  labels.reserve(capacity);
  const auto push = [&](int64_t id, bool scored) {
    ids.push_back(id);
    labels.push_back(scored ? id : kIgnoreLabel);
  };
  if (tokenizer.add_bos()) push(*tokenizer.bos_id(), false);
  for (std::size_t i = 0; i < encoding.ids.size(); ++i) {
    push(encoding.ids[i], options.train_on_inputs ||
                              lies_in_response(encoding.spans[i].first, encoding.spans[i].second,
                                               prompt.response_spans));
  }
  if (options.append_eos) push(*tokenizer.eos_id(), true);
  return detail::finished_example(std::move(example), options.max_length);
}

/// The ids of a chat. The template writes bos and eos itself; what looks like a special token in a
/// message is plain text.
inline Tokenizer::Encoding encode_chat(const Tokenizer& tokenizer, const RenderedChat& chat) {
  return tokenizer.encode_markup(chat.text, [&chat](std::size_t begin, std::size_t end) {
    return chat.is_markup(begin, end);
  });
}

/// Which tokens of a chat are the assistant's to write: those with a byte in an answer and, where
/// end marks follow, the special token behind it (bos aside) with the white space before it.
inline std::vector<bool> answer_mask(const Tokenizer& tokenizer,
                                     const RenderedChat& chat,
                                     const Tokenizer::Encoding& encoding) {
  const auto& ids = encoding.ids;  // no binding: clang 14 captures none
  const auto& spans = encoding.spans;
  std::vector<bool> mask(ids.size(), false);
  std::size_t first = 0;  // the first token that ends behind the beginning of the answer
  for (const RenderedChat::Span& answer : chat.answers) {
    while (first < ids.size() && spans[first].second <= answer.begin) ++first;
    std::size_t at = first;
    for (; at < ids.size() && spans[at].first < answer.end; ++at)
      mask[at] = spans[at].second > std::max(spans[at].first, answer.begin);
    if (!chat.end_marks_follow || at == 0 || answer.begin == answer.end) continue;
    std::size_t mark = at;
    const auto is_space = [&](std::size_t token) {
      const std::string_view text = std::string_view(chat.text).substr(
          spans[token].first, spans[token].second - spans[token].first);
      return text.find_first_not_of(" \t\r\n") == std::string_view::npos;
    };
    while (mark < ids.size() && !tokenizer.is_special(ids[mark]) && is_space(mark)) ++mark;
    const bool ends = mark < ids.size() && tokenizer.is_special(ids[mark]) &&
                      (ids[mark] != tokenizer.bos_id() || ids[mark] == tokenizer.eos_id());
    if (ends)
      std::fill(mask.begin() + static_cast<std::ptrdiff_t>(at),
                mask.begin() + static_cast<std::ptrdiff_t>(mark) + 1, true);
  }
  return mask;
}

/// Tokenizes and labels a chat. With train_on_inputs every token is scored, otherwise the answers;
/// what stands first is not. Nothing is put around the text: the template ends the answers, so
/// append_eos is of no account.
inline LabeledExample tokenize_chat(const Tokenizer& tokenizer,
                                    const RenderedChat& chat,
                                    const TokenizeOptions& options) {
  detail::check_max_length(options);
  const Tokenizer::Encoding encoding = encode_chat(tokenizer, chat);
  const std::vector<bool> scored = answer_mask(tokenizer, chat, encoding);
  Example example{.ids = encoding.ids, .labels = encoding.ids};
  for (std::size_t i = 0; i < scored.size(); ++i)
    if (!scored[i] && !options.train_on_inputs) example.labels[i] = kIgnoreLabel;
  return detail::finished_example(std::move(example), options.max_length);
}

/// True if some token of the example is scored.
inline bool has_label(const Example& example) {
  return std::any_of(example.labels.begin(), example.labels.end(),
                     [](int64_t label) { return label != kIgnoreLabel; });
}

}  // namespace lorapp
