// ChatTemplate: the files of a model folder, the built-in templates, and the way through the
// interpreter.
#include <lorapp/data/chat_builtin.hpp>
#include <lorapp/data/chat_template.hpp>
#include <lorapp/data/jinja_interpreter.hpp>

#include "json_file.hpp"

#include <algorithm>
#include <limits>
#include <system_error>
#include <utility>

namespace lorapp {

using detail::kChatOp;
using nlohmann::json;
namespace jinja = detail::jinja;
namespace fs = std::filesystem;

struct ChatTemplate::Program {
  std::string name;
  ChatTokens tokens;
  jinja::Body body;
  bool marks_answers = false;
};

namespace {

constexpr const char* kTemplateFile = "chat_template.jinja";
constexpr const char* kTemplateJson = "chat_template.json";
constexpr const char* kConfigFile = "tokenizer_config.json";

bool has_generation(const jinja::Body& body) {
  return std::any_of(body.begin(), body.end(), [](const jinja::NodePtr& node) {
    return node->kind == jinja::NodeKind::generation ||
           std::any_of(node->bodies.begin(), node->bodies.end(), has_generation);
  });
}

bool is_there(const fs::path& file) {
  std::error_code ignored;
  return fs::exists(file, ignored);
}

// The text of a "chat_template" field: a string, or one of a list of {name, template}.
std::string pick_template(const json& field, const std::string& name, const std::string& where) {
  if (field.is_string()) return field.get<std::string>();
  LORAPP_CHECK(field.is_array(), kChatOp, where, ": chat_template is ", detail::describe(field),
               "; expected a string or a list of {name, template}");
  std::string names;
  for (const json& entry : field) {
    const auto text = [&](const char* key) -> const json* {
      const auto it = entry.is_object() ? entry.find(key) : entry.end();
      return entry.is_object() && it != entry.end() && it->is_string() ? &*it : nullptr;
    };
    const json *known = text("name"), *source = text("template");
    LORAPP_CHECK(known && source, kChatOp, where, ": chat_template has ", detail::describe(entry),
                 "; expected {\"name\": …, \"template\": …}");
    if (*known == name) return source->get<std::string>();
    names += (names.empty() ? "" : ", ") + known->get<std::string>();
  }
  detail::fail(kChatOp, detail::concat(where, ": has no chat template \"", name, "\"; it has ",
                                       names.empty() ? "none" : names));
}

jinja::Value message_value(const ChatMessage& message, int number) {
  const auto text = [number](const std::string& bytes, bool content) {
    return jinja::Value::text(detail::MarkedText(bytes, {.message = number, .content = content}));
  };
  return jinja::Value::dict(
      {{jinja::Value::text(std::string("role")), text(message.role, false)},
       {jinja::Value::text(std::string("content")), text(message.content, true)}});
}

}  // namespace

ChatTokens chat_tokens(const Tokenizer& tokenizer) {
  ChatTokens tokens;
  const auto add = [&](const char* name, const std::optional<int64_t>& id) {
    if (id) tokens.emplace_back(name, tokenizer.id_to_token(*id));
  };
  add("bos_token", tokenizer.bos_id());
  add("eos_token", tokenizer.eos_id());
  add("unk_token", tokenizer.unk_id());
  if (tokenizer.pad_id() != tokenizer.eos_id()) add("pad_token", tokenizer.pad_id());
  return tokens;
}

ChatTemplate::ChatTemplate(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
const std::string& ChatTemplate::name() const { return program_->name; }
bool ChatTemplate::marks_answers() const { return program_->marks_answers; }

ChatTemplate ChatTemplate::from_string(std::string name,
                                       std::string_view source,
                                       ChatTokens tokens) {
  auto program = std::make_shared<Program>();
  try {
    program->body = jinja::Parser::parse(source);
  } catch (const jinja::Failure& failure) {
    detail::fail(kChatOp, name + ", " + failure.what());
  }
  program->name = std::move(name);
  program->tokens = std::move(tokens);
  program->marks_answers = has_generation(program->body);
  return ChatTemplate(std::move(program));
}

ChatTemplate ChatTemplate::from_file(const fs::path& path, const Tokenizer& tokenizer) {
  return from_string(path.string(), detail::read_text_file(path, kChatOp), chat_tokens(tokenizer));
}

ChatTemplate ChatTemplate::from_pretrained(const fs::path& directory,
                                           const Tokenizer& tokenizer,
                                           const std::string& name) {
  const ChatTokens tokens = chat_tokens(tokenizer);
  if (const fs::path file = directory / kTemplateFile; name == "default" && is_there(file))
    return from_file(file, tokenizer);
  for (const char* json_name : {kConfigFile, kTemplateJson}) {
    const fs::path file = directory / json_name;
    if (!is_there(file)) continue;
    const json object = detail::read_json_object(file, kChatOp);
    const auto field = object.find("chat_template");
    if (field == object.end() || field->is_null()) continue;
    return from_string(file.string(), pick_template(*field, name, file.string()), tokens);
  }
  std::string built_in;
  for (const std::string& known : built_in_names())
    built_in += (built_in.empty() ? "" : ", ") + known;
  detail::fail(kChatOp, detail::concat(directory.string(), ": has no chat template (",
                                       kTemplateFile, ", or chat_template in ", kConfigFile, " or ",
                                       kTemplateJson, "); built in are ", built_in));
}

const std::vector<std::string>& ChatTemplate::built_in_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> result;
    for (const auto& chat : detail::kBuiltInChats) result.emplace_back(chat.name);
    return result;
  }();
  return names;
}

std::string_view ChatTemplate::built_in_source(const std::string& name) {
  std::string names;
  for (const auto& chat : detail::kBuiltInChats) {
    if (chat.name == name) return chat.source;
    names.append(names.empty() ? "" : ", ").append(chat.name);
  }
  detail::fail(kChatOp,
               detail::concat("\"", name, "\" is no built-in chat template; expected ", names));
}

ChatTemplate ChatTemplate::built_in(const std::string& name, const Tokenizer& tokenizer) {
  return from_string(name, built_in_source(name), chat_tokens(tokenizer));
}

RenderedChat ChatTemplate::render(std::span<const ChatMessage> messages,
                                  const ChatOptions& options) const {
  LORAPP_CHECK(!messages.empty(), kChatOp, program_->name, ": the conversation has no messages");
  LORAPP_CHECK(std::cmp_less(messages.size(), std::numeric_limits<int>::max()), kChatOp,
               program_->name, ": the conversation has ", messages.size(), " messages");
  std::vector<jinja::Value> values;
  std::size_t bytes = 0;
  for (const ChatMessage& message : messages) {
    bytes += message.role.size() + message.content.size();
    values.push_back(message_value(message, static_cast<int>(values.size())));
  }
  jinja::Scope::Variables variables;
  for (const auto& [name, text] : program_->tokens)
    variables.emplace_back(name, jinja::Value::text(text));
  variables.emplace_back("messages", jinja::Value::list(std::move(values)));
  variables.emplace_back("tools", jinja::Value::none());
  variables.emplace_back("documents", jinja::Value::none());
  variables.emplace_back("add_generation_prompt", options.add_generation_prompt);
  const std::time_t now = options.now ? *options.now : std::time(nullptr);
  try {
    const detail::MarkedText text = jinja::Interpreter::run(program_->body, std::move(variables),
                                                            jinja::allowed_steps(bytes), now);
    return detail::chat_of(text, messages, program_->marks_answers);
  } catch (const jinja::Failure& failure) {
    detail::fail(kChatOp, program_->name + ", " + failure.what());
  }
}

}  // namespace lorapp
