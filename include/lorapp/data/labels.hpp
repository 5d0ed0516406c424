// From a rendered row to an Example: which tokens stay, and which are scored.
// Convention: bos + text + eos is built first, then cut at max_length from the end.
#pragma once

#include <lorapp/data/example.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
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

/// An example and whether max_length shortened it.
struct LabeledExample {
  Example example;
  bool cut = false;
};

/// Tokenizes and labels one row. With train_on_inputs every token of the text is scored, otherwise
/// those with a byte in a response span; eos counts as response; bos, and whatever stands first, is
/// not scored.
///
/// bos is there if the tokenizer puts one (add_bos), eos if `append_eos` asks for it.
inline LabeledExample make_example(const Tokenizer& tokenizer,
                                   const RenderedPrompt& prompt,
                                   const TokenizeOptions& options) {
  LORAPP_CHECK(options.max_length >= 1, "tokenize", "max_length is ", options.max_length,
               ", expected 1 or more");
  LORAPP_CHECK(!options.append_eos || tokenizer.eos_id(), "tokenize",
               "append_eos asks for an end token, but the tokenizer has none");
  Tokenizer::Encoding encoding;
  if (options.train_on_inputs) {
    encoding.ids = tokenizer.encode(prompt.text, false);
  } else {
    encoding = tokenizer.encode_with_spans(prompt.text, false);
  }

  LabeledExample result;
  std::vector<int64_t>& ids = result.example.ids;  // no binding: clang 14 captures none
  std::vector<int64_t>& labels = result.example.labels;
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

  result.cut = std::cmp_greater(ids.size(), options.max_length);
  if (result.cut) {
    ids.resize(static_cast<std::size_t>(options.max_length));
    labels.resize(ids.size());
  }
  if (!labels.empty()) labels.front() = kIgnoreLabel;
  return result;
}

/// True if some token of the example is scored.
inline bool has_label(const Example& example) {
  return std::any_of(example.labels.begin(), example.labels.end(),
                     [](int64_t label) { return label != kIgnoreLabel; });
}

}  // namespace lorapp
