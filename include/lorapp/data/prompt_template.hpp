// PromptTemplate: an instruction row becomes text, with the byte spans that the model has to write.
// Convention: the context section is used if and only if the context is not empty; nothing is
// trimmed.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace lorapp {

namespace detail {
inline constexpr const char* kTemplateOp = "prompt_template";
/// The keys of a template file.
inline constexpr const char* kWithContextKey = "prompt_with_context";
inline constexpr const char* kWithoutContextKey = "prompt_without_context";
}  // namespace detail

/// One message of a conversation.
struct ChatMessage {
  std::string role{};  ///< "system", "user", "assistant", or what else a template knows
  std::string content{};

  friend bool operator==(const ChatMessage&, const ChatMessage&) = default;
};

/// One row of an instruction data set. Alpaca's `input` is `context`, its `output` is `response`.
struct Instruction {
  std::string instruction{};
  std::string context{};
  std::string response{};
  std::optional<std::string> category{};
  /// A row of plain text: no template is applied, all of it is scored, and the fields above are
  /// empty.
  std::optional<std::string> text{};
  /// A row that is a conversation, for a ChatTemplate; the fields above are empty.
  std::vector<ChatMessage> messages{};
};

/// What a template made of a row.
struct RenderedPrompt {
  struct Span {
    std::size_t begin = 0;
    std::size_t end = 0;  ///< bytes [begin, end) of `text`
    bool response = true;

    friend bool operator==(const Span&, const Span&) = default;
  };

  std::string text;
  std::vector<Span> response_spans;  ///< what the model is to write, in order
};

/// Two texts with placeholders, one for rows with a context and one for rows without.
///
/// Placeholders are {instruction}, {context} (or {input}) and {response}; `{{` and `}}` stand for
/// braces. The response span runs from the spaces directly before {response} to the end of the
/// text: a tokenizer joins a space to the word behind it, so the model writes both, and what
/// follows the response (an end mark) is the model's to write as well.
class PromptTemplate {
 public:
  /// The layout of Stanford Alpaca: a sentence, then `### Instruction:`, `### Input:`, `###
  /// Response:` sections.
  static PromptTemplate alpaca();

  /// `[INST] instruction\n\ncontext [/INST] response`: one turn as Mistral's instruct models were
  /// trained on.
  static PromptTemplate mistral_instruct();

  /// The layout of Databricks' Dolly models: Alpaca's sentence and sections, `Input:` for the
  /// context, and `### End` behind the response.
  static PromptTemplate dolly();

  /// Reads a JSON object with the strings `prompt_with_context` and `prompt_without_context` (see
  /// docs/data.md). Throws Error listing every problem of both texts.
  LORAPP_API static PromptTemplate from_file(const std::filesystem::path& path);

  /// From the two texts themselves; `name` appears in errors.
  static PromptTemplate from_strings(std::string name,
                                     std::string_view with_context,
                                     std::string_view without_context);

  /// "alpaca", "dolly", "mistral-instruct", or the path of a template file.
  static PromptTemplate named_or_file(const std::string& name_or_path);

  /// The whole text of a row. A row of plain text is returned as it is, all of it response. Throws
  /// Error for a conversation, which needs a ChatTemplate.
  RenderedPrompt render(const Instruction& row) const;

  /// What generation starts from: the text of the row up to the response.
  std::string render_prompt(const Instruction& row) const;

  const std::string& name() const { return name_; }

 private:
  enum class Field { literal, instruction, context, response };
  struct Piece {
    Field field = Field::literal;
    std::string literal;  // of Field::literal; the spaces that belong to Field::response
  };
  using Layout = std::vector<Piece>;

  static Layout parse(std::string_view text,
                      bool with_context,
                      std::string_view key,
                      Problems& problems);

  std::string name_;
  Layout with_context_;
  Layout without_context_;
};

inline PromptTemplate PromptTemplate::alpaca() {
  return from_strings(
      "alpaca",
      "Below is an instruction that describes a task, paired with an input that provides further "
      "context. "
      "Write a response that appropriately completes the request.\n\n"
      "### Instruction:\n{instruction}\n\n### Input:\n{context}\n\n### Response:\n{response}",
      "Below is an instruction that describes a task. Write a response that appropriately "
      "completes the request.\n\n"
      "### Instruction:\n{instruction}\n\n### Response:\n{response}");
}

inline PromptTemplate PromptTemplate::mistral_instruct() {
  return from_strings("mistral-instruct", "[INST] {instruction}\n\n{context} [/INST] {response}",
                      "[INST] {instruction} [/INST] {response}");
}

inline PromptTemplate PromptTemplate::dolly() {
  const std::string intro =
      "Below is an instruction that describes a task. Write a response that appropriately "
      "completes the request.\n\n### Instruction:\n{instruction}\n\n";
  const std::string answer = "### Response:\n{response}\n\n### End";
  return from_strings("dolly", intro + "Input:\n{context}\n\n" + answer, intro + answer);
}

inline PromptTemplate PromptTemplate::from_strings(std::string name,
                                                   std::string_view with_context,
                                                   std::string_view without_context) {
  Problems problems(detail::kTemplateOp, name);
  PromptTemplate result;
  result.with_context_ = parse(with_context, true, detail::kWithContextKey, problems);
  result.without_context_ = parse(without_context, false, detail::kWithoutContextKey, problems);
  problems.throw_if_any();
  result.name_ = std::move(name);
  return result;
}

inline PromptTemplate PromptTemplate::named_or_file(const std::string& name_or_path) {
  if (name_or_path == "alpaca") return alpaca();
  if (name_or_path == "dolly") return dolly();
  if (name_or_path == "mistral-instruct") return mistral_instruct();
  std::error_code ignored;
  LORAPP_CHECK(std::filesystem::exists(name_or_path, ignored), detail::kTemplateOp, "\"",
               name_or_path,
               "\" is neither a template file nor the name of a built-in template; expected "
               "alpaca, dolly, mistral-instruct, or the path of a JSON file");
  return from_file(name_or_path);
}

inline PromptTemplate::Layout PromptTemplate::parse(std::string_view text,
                                                    bool with_context,
                                                    std::string_view key,
                                                    Problems& problems) {
  Layout layout;
  int instructions = 0, contexts = 0, responses = 0;
  const auto add_literal = [&layout](std::string_view piece) {
    if (layout.empty() || layout.back().field != Field::literal) layout.emplace_back();
    layout.back().literal += piece;
  };
  for (std::size_t at = 0; at < text.size();) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      const std::size_t next = text.find_first_of("{}", at);
      add_literal(text.substr(at, next == std::string_view::npos ? next : next - at));
      at = next == std::string_view::npos ? text.size() : next;
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == c) {
      add_literal(text.substr(at, 1));
      at += 2;
      continue;
    }
    const std::size_t close = c == '{' ? text.find_first_of("{}", at + 1) : std::string_view::npos;
    if (close == std::string_view::npos || text[close] != '}') {
      problems.add(key, ": a single '", c, "' at byte ", at,
                   "; a brace of the text itself is written twice");
      at += 1;
      continue;
    }
    const std::string_view name = text.substr(at + 1, close - at - 1);
    if (name == "instruction") {
      instructions += 1;
      layout.push_back({.field = Field::instruction, .literal = {}});
    } else if (name == "context" || name == "input") {
      contexts += 1;
      layout.push_back({.field = Field::context, .literal = {}});
    } else if (name == "response") {
      responses += 1;
      Piece response{.field = Field::response, .literal = {}};
      if (!layout.empty() && layout.back().field == Field::literal) {
        std::string& before = layout.back().literal;
        const std::size_t spaces = before.size() - (before.find_last_not_of(' ') + 1);
        response.literal.assign(spaces, ' ');
        before.resize(before.size() - spaces);
      }
      layout.push_back(std::move(response));
    } else {
      problems.add(key, ": unknown placeholder {", name, "} at byte ", at,
                   "; expected {instruction}, {context} (or {input}) or {response}");
    }
    if (responses > 0 && name != "response")
      problems.add(key, ": {", name, "} at byte ", at,
                   " stands behind {response}, which has to be the last");
    at = close + 1;
  }
  if (instructions == 0) problems.add(key, ": has no {instruction}");
  if (responses != 1) problems.add(key, ": has ", responses, " times {response}, expected once");
  if (with_context && contexts == 0)
    problems.add(key, ": has no {context}, so that the context of a row would be lost");
  if (!with_context && contexts > 0)
    problems.add(key, ": has a {context}, but is for rows without one");
  return layout;
}

inline RenderedPrompt PromptTemplate::render(const Instruction& row) const {
  RenderedPrompt result;
  LORAPP_CHECK(row.messages.empty(), detail::kTemplateOp, name_,
               ": a row of messages needs a chat template");
  if (row.text) {
    result.text = *row.text;
    result.response_spans.push_back({.begin = 0, .end = result.text.size()});
    return result;
  }
  std::size_t begin = 0;
  for (const Piece& piece : row.context.empty() ? without_context_ : with_context_) {
    switch (piece.field) {
      case Field::literal:
        result.text += piece.literal;
        break;
      case Field::instruction:
        result.text += row.instruction;
        break;
      case Field::context:
        result.text += row.context;
        break;
      case Field::response:
        begin = result.text.size();
        result.text += piece.literal;
        result.text += row.response;
        break;
    }
  }
  result.response_spans.push_back({.begin = begin, .end = result.text.size()});
  return result;
}

inline std::string PromptTemplate::render_prompt(const Instruction& row) const {
  RenderedPrompt whole = render(row);
  whole.text.resize(whole.response_spans.front().begin);
  return std::move(whole.text);
}

}  // namespace lorapp
