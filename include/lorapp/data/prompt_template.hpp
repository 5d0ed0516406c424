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
#include <vector>

namespace lorapp {

/// One row of an instruction data set. Alpaca's `input` is `context`, its `output` is `response`.
struct Instruction {
  std::string instruction{};
  std::string context{};
  std::string response{};
  std::optional<std::string> category{};
  /// A row of plain text: no template is applied, all of it is scored, and the fields above are
  /// empty.
  std::optional<std::string> text{};
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
class LORAPP_API PromptTemplate {
 public:
  /// The layout of Stanford Alpaca: a sentence, then `### Instruction:`, `### Input:`, `###
  /// Response:` sections.
  static PromptTemplate alpaca();

  /// `[INST] instruction\n\ncontext [/INST] response`: one turn as Mistral's instruct models were
  /// trained on.
  static PromptTemplate mistral_instruct();

  /// Reads a JSON object with the strings `prompt_with_context` and `prompt_without_context` (see
  /// docs/data.md). Throws Error listing every problem of both texts.
  static PromptTemplate from_file(const std::filesystem::path& path);

  /// From the two texts themselves; `name` appears in errors.
  static PromptTemplate from_strings(std::string name,
                                     std::string_view with_context,
                                     std::string_view without_context);

  /// "alpaca", "mistral-instruct", or the path of a template file.
  static PromptTemplate named_or_file(const std::string& name_or_path);

  /// The whole text of a row. A row of plain text is returned as it is, all of it response.
  RenderedPrompt render(const Instruction& row) const;

  /// What generation starts from: the text of the row up to the response.
  std::string render_prompt(const Instruction& row) const;

  const std::string& name() const { return name_; }

 private:
  enum class Field { literal, instruction, context, response };
  struct Piece {
    Field field = Field::literal;
    std::string literal;  // of Field::literal
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

}  // namespace lorapp
