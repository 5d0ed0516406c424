// ChatTemplate: a conversation becomes the text that a chat model was trained on, with the places
// of the assistant's answers.
// Convention: places are byte spans [begin, end) of the rendered text, in order, without overlap.
#pragma once

#include <lorapp/data/marked_text.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/export.hpp>

#include <algorithm>
#include <cstddef>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

/// What a chat template made of a conversation.
struct RenderedChat {
  using Span = RenderedPrompt::Span;

  std::string text;
  /// What the assistant is to write.
  std::vector<Span> answers{};
  /// False where the template itself marks the answers ({% generation %}). True where they are the
  /// contents of the assistant's messages: the special token that follows one, with white space
  /// between at most, is then the assistant's to write as well.
  bool end_marks_follow = false;
  /// Where the text is a message's content: a special token that shares a byte with it is plain
  /// text.
  std::vector<Span> contents{};
  /// Where it is a message's role: a special token that lies within is plain text. (A template may
  /// make one of a role, as in "<|" + role + "|>".)
  std::vector<Span> roles{};

  /// True if a special token written at [begin, end) is the template's, not a message's.
  bool is_markup(std::size_t begin, std::size_t end) const;
};

/// The values of bos_token, eos_token, … in a template: what is not here prints as nothing.
using ChatTokens = std::vector<std::pair<std::string, std::string>>;

/// bos_token, eos_token and unk_token of a tokenizer, and pad_token if it is another than eos.
LORAPP_API ChatTokens chat_tokens(const Tokenizer& tokenizer);

struct ChatOptions {
  /// End with what comes before an answer, so that a model goes on with it.
  bool add_generation_prompt = false;
  /// What strftime_now reads; none: the clock.
  std::optional<std::time_t> now{};
};

/// A value: copies share one immutable template. render() may be called from several threads.
class LORAPP_API ChatTemplate {
 public:
  /// The chat template of a model folder: chat_template.jinja, else the `chat_template` of
  /// tokenizer_config.json (a text, or a list of {name, template}), else chat_template.json.
  ///
  /// `name` picks from a list. Throws Error if the folder has none, or if it has no such name.
  static ChatTemplate from_pretrained(const std::filesystem::path& directory,
                                      const Tokenizer& tokenizer,
                                      const std::string& name = "default");

  /// A template in Jinja, in the subset that docs/data.md lists. Throws Error that names the line
  /// and what was found there.
  static ChatTemplate from_string(std::string name, std::string_view source, ChatTokens tokens);

  /// The same from a file.
  static ChatTemplate from_file(const std::filesystem::path& path, const Tokenizer& tokenizer);

  /// "mistral-v1", "mistral-v3", "llama2", "llama3", "chatml", "alpaca", "dolly". Each marks its
  /// answers with {% generation %}. Throws Error for another name.
  static ChatTemplate built_in(const std::string& name, const Tokenizer& tokenizer);

  /// The names of built_in().
  static const std::vector<std::string>& built_in_names();

  /// The Jinja source of a built-in template.
  static std::string_view built_in_source(const std::string& name);

  /// The text of a conversation. Throws Error that names the line for what the template refuses
  /// (raise_exception) or cannot do, and where it takes more steps than a text of this size may.
  RenderedChat render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  /// A row as a conversation: its messages, else the instruction (with the context behind a blank
  /// line) as the user's and the response as the assistant's. Without the last answer if `prompt`.
  static std::vector<ChatMessage> messages_of(const Instruction& row, bool prompt = false);

  const std::string& name() const;
  /// True if the template marks the assistant's answers itself.
  bool marks_answers() const;

  struct Program;  ///< not for users: defined in src/data

 private:
  explicit ChatTemplate(std::shared_ptr<const Program> program);
  std::shared_ptr<const Program> program_;
};

namespace detail {

inline constexpr const char* kChatOp = "chat_template";

/// The first span that ends behind `at`.
inline const RenderedChat::Span* span_behind(const std::vector<RenderedChat::Span>& spans,
                                             std::size_t at) {
  const auto it = std::upper_bound(
      spans.begin(), spans.end(), at,
      [](std::size_t byte, const RenderedChat::Span& span) { return byte < span.end; });
  return it == spans.end() ? nullptr : &*it;
}

/// The runs that `belongs` accepts, those that touch joined.
template <class Belongs>
std::vector<RenderedChat::Span> joined_spans(const std::vector<MarkedText::Run>& runs,
                                             const Belongs& belongs) {
  std::vector<RenderedChat::Span> spans;
  for (const MarkedText::Run& run : runs) {
    if (!belongs(run.origin)) continue;
    if (!spans.empty() && spans.back().end == run.begin) {
      spans.back().end = run.end;
    } else {
      spans.push_back({.begin = run.begin, .end = run.end});
    }
  }
  return spans;
}

/// Where the contents of the assistant's messages are: from the first byte of a message's to the
/// last, unless another message's words lie between.
inline std::vector<RenderedChat::Span> answer_contents(const std::vector<MarkedText::Run>& runs,
                                                       std::span<const ChatMessage> messages) {
  std::vector<RenderedChat::Span> spans;
  int last = TextOrigin::kTemplate;
  for (const MarkedText::Run& run : runs) {
    const TextOrigin& origin = run.origin;
    if (origin.message == TextOrigin::kTemplate) continue;
    const bool answer =
        origin.content && messages[static_cast<std::size_t>(origin.message)].role == "assistant";
    if (answer && origin.message == last) {
      spans.back().end = run.end;
    } else if (answer) {
      spans.push_back({.begin = run.begin, .end = run.end});
    }
    last = answer ? origin.message : TextOrigin::kTemplate;
  }
  return spans;
}

/// The places in a text that a template made of `messages`.
inline RenderedChat chat_of(const MarkedText& text,
                            std::span<const ChatMessage> messages,
                            bool marks_answers) {
  const auto& runs = text.runs();
  RenderedChat chat{.text = text.text(), .end_marks_follow = !marks_answers};
  chat.answers = marks_answers
                     ? joined_spans(runs, [](const TextOrigin& o) { return o.generation; })
                     : answer_contents(runs, messages);
  const auto is_input = [](const TextOrigin& o) { return o.message != TextOrigin::kTemplate; };
  chat.contents = joined_spans(runs, [&](const TextOrigin& o) { return is_input(o) && o.content; });
  chat.roles = joined_spans(runs, [&](const TextOrigin& o) { return is_input(o) && !o.content; });
  return chat;
}

}  // namespace detail

inline bool RenderedChat::is_markup(std::size_t begin, std::size_t end) const {
  const Span* content = detail::span_behind(contents, begin);
  if (content != nullptr && content->begin < end) return false;
  const Span* role = detail::span_behind(roles, begin);
  return role == nullptr || begin < role->begin || end > role->end;
}

inline std::vector<ChatMessage> ChatTemplate::messages_of(const Instruction& row, bool prompt) {
  std::vector<ChatMessage> messages = row.messages;
  if (messages.empty()) {
    messages.push_back({.role = "user", .content = row.instruction});
    if (!row.context.empty()) messages.back().content += "\n\n" + row.context;
    messages.push_back({.role = "assistant", .content = row.response});
  }
  if (prompt && messages.back().role == "assistant") messages.pop_back();
  return messages;
}

}  // namespace lorapp
