// What the tests of chat templates share: the goldens, and a template rendered from its source.
#pragma once

#include "data_support.hpp"

#include <lorapp/data/chat_template.hpp>

#include <string>
#include <vector>

namespace data_test {

inline const nlohmann::json& chat_goldens() {
  static const nlohmann::json value =
      nlohmann::json::parse(lorapp::test::read_file(source_dir() / "chat_goldens.json"));
  return value;
}

inline const std::vector<lorapp::ChatMessage> kChat = {{.role = "user", .content = "hi"},
                                                       {.role = "assistant", .content = "it's"}};

inline std::string render(const std::string& source,
                          const std::vector<lorapp::ChatMessage>& messages = kChat) {
  return lorapp::ChatTemplate::from_string("t", source,
                                           {{"bos_token", "<s>"}, {"eos_token", "</s>"}})
      .render(messages, {.add_generation_prompt = true})
      .text;
}

inline std::string error_in(const std::string& source,
                            const std::vector<lorapp::ChatMessage>& messages = kChat) {
  return error_of([&] { (void)render(source, messages); });
}

}  // namespace data_test
