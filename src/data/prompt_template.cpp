// PromptTemplate::from_file: the JSON form of a template.
#include <lorapp/data/prompt_template.hpp>

#include "json_file.hpp"

namespace lorapp {

PromptTemplate PromptTemplate::from_file(const std::filesystem::path& path) {
  const nlohmann::json object = detail::read_json_object(path, detail::kTemplateOp);
  Problems problems(detail::kTemplateOp, path.string());
  PromptTemplate result;
  const auto read = [&](const char* key, bool with_context) {
    const std::size_t before = problems.size();
    const std::string text = detail::get_string(object, key, problems);
    return problems.size() == before ? parse(text, with_context, key, problems) : Layout{};
  };
  result.with_context_ = read(detail::kWithContextKey, true);
  result.without_context_ = read(detail::kWithoutContextKey, false);
  result.name_ = detail::get_string_or(object, "name", problems, path.string());
  (void)detail::find_string(object, "description", problems);
  for (const auto& [key, value] : object.items()) {
    if (key != detail::kWithContextKey && key != detail::kWithoutContextKey && key != "name" &&
        key != "description") {
      problems.add("unknown key \"", key, "\"; expected ", detail::kWithContextKey, ", ",
                   detail::kWithoutContextKey, ", and optionally name, description");
    }
  }
  problems.throw_if_any();
  return result;
}

}  // namespace lorapp
