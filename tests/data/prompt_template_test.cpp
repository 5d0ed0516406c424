// prompt_template.hpp: the built-in texts, spans, and what a template file may hold.
#include <lorapp/data/prompt_template.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;
using data_test::TemporaryFolder;

namespace {

const Instruction kRow{
    .instruction = "Name a river.", .context = "Rivers flow.", .response = "Elbe"};
const Instruction kShortRow{.instruction = "Name a river.", .response = "Elbe"};

std::string response_of(const RenderedPrompt& prompt) {
  REQUIRE(prompt.response_spans.size() == 1);
  const auto span = prompt.response_spans.front();
  REQUIRE(span.response);
  return prompt.text.substr(span.begin, span.end - span.begin);
}

std::string from_json(const std::string& text) {
  const TemporaryFolder folder;
  return error_of([&] { (void)PromptTemplate::from_file(folder.write("t.json", text)); });
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("template: alpaca renders the tutorial's text, with and without a context") {
    const auto alpaca = PromptTemplate::alpaca();
    CHECK(alpaca.render(kRow).text ==
          "Below is an instruction that describes a task, paired with an input that provides "
          "further context. Write a "
          "response that appropriately completes the request.\n\n### Instruction:\nName a "
          "river.\n\n### "
          "Input:\nRivers flow.\n\n### Response:\nElbe");
    CHECK(alpaca.render(kShortRow).text ==
          "Below is an instruction that describes a task. Write a response that appropriately "
          "completes the "
          "request.\n\n### Instruction:\nName a river.\n\n### Response:\nElbe");
    CHECK(response_of(alpaca.render(kRow)) == "Elbe");
    CHECK(alpaca.render_prompt(kShortRow).ends_with("### Response:\n"));
    CHECK(alpaca.render_prompt(kRow) + "Elbe" == alpaca.render(kRow).text);
  }

  TEST_CASE(
      "template: mistral-instruct joins the context with a blank line, and the prompt ends at "
      "[/INST]") {
    const auto mistral = PromptTemplate::mistral_instruct();
    CHECK(mistral.render(kRow).text == "[INST] Name a river.\n\nRivers flow. [/INST] Elbe");
    CHECK(mistral.render(kShortRow).text == "[INST] Name a river. [/INST] Elbe");
    CHECK(mistral.render_prompt(kShortRow) == "[INST] Name a river. [/INST]");
    CHECK(response_of(mistral.render(kShortRow)) == " Elbe");
  }

  TEST_CASE("template: dolly puts the context under Input and an end mark behind the response") {
    const auto dolly = PromptTemplate::named_or_file("dolly");
    CHECK(dolly.render(kRow).text ==
          "Below is an instruction that describes a task. Write a response that appropriately "
          "completes the request.\n\n### Instruction:\nName a river.\n\nInput:\nRivers "
          "flow.\n\n### Response:\nElbe\n\n### End");
    CHECK(response_of(dolly.render(kShortRow)) == "Elbe\n\n### End");
    CHECK(dolly.render_prompt(kShortRow).ends_with("Name a river.\n\n### Response:\n"));
  }

  TEST_CASE("template: only an empty context counts as none, and nothing is trimmed") {
    const auto alpaca = PromptTemplate::alpaca();
    CHECK(contains(alpaca.render({.instruction = "i", .context = " ", .response = "r"}).text,
                   "### Input:\n \n\n"));
    CHECK(contains(alpaca.render({.instruction = "  i\n", .response = " r \n"}).text,
                   "### Instruction:\n  i\n\n\n### Response:\n r \n"));
    CHECK(response_of(alpaca.render({.instruction = "i", .response = " r \n"})) == " r \n");
  }

  TEST_CASE("template: placeholders in a row's own text stay as they are") {
    const Instruction row{
        .instruction = "{response} {{x}}", .context = "{instruction}", .response = "{context}"};
    const auto prompt = PromptTemplate::mistral_instruct().render(row);
    CHECK(prompt.text == "[INST] {response} {{x}}\n\n{instruction} [/INST] {context}");
    CHECK(response_of(prompt) == " {context}");
  }

  TEST_CASE("template: a row of plain text is all response under every template") {
    const auto prompt = PromptTemplate::alpaca().render({.text = "Just text."});
    CHECK(prompt.text == "Just text.");
    CHECK(response_of(prompt) == "Just text.");
    CHECK(PromptTemplate::alpaca().render_prompt({.text = "Just text."}).empty());
  }

  TEST_CASE(
      "template: a file's texts may hold braces, {input} for {context}, and an end mark after the "
      "response") {
    const TemporaryFolder folder;
    const auto path = folder.write("chat.json", R"({"name": "chat", "description": "d",
      "prompt_with_context": "{{sys}} {input}|{instruction}\n{response}<end>\n",
      "prompt_without_context": "{{}} {instruction}:  {response}"})");
    const auto chat = PromptTemplate::named_or_file(path.string());
    CHECK(chat.name() == "chat");
    CHECK(chat.render(kRow).text == "{sys} Rivers flow.|Name a river.\nElbe<end>\n");
    CHECK(response_of(chat.render(kRow)) == "Elbe<end>\n");
    CHECK(chat.render_prompt(kRow) == "{sys} Rivers flow.|Name a river.\n");
    CHECK(chat.render(kShortRow).text == "{} Name a river.:  Elbe");
    CHECK(response_of(chat.render(kShortRow)) == "  Elbe");
    CHECK(chat.render_prompt(kShortRow) == "{} Name a river.:");
  }

  TEST_CASE("template: one message lists every problem of a file") {
    const std::string message = from_json(
        R"({"prompt_with_context": "{instruction} {respones} {response} {instruction} {", "prompt_without_context": "{context} } {response} {response}", "extra": 1})");
    for (const char* part :
         {"t.json", "unknown placeholder {respones}", "stands behind {response}", "a single '{'",
          "a single '}'", "has no {context}", "has no {instruction}", "2 times {response}",
          "is for rows without one", "unknown key \"extra\""}) {
      CAPTURE(part);
      CAPTURE(message);
      CHECK(contains(message, part));
    }
  }

  TEST_CASE(
      "template: a missing text, a wrong type, a file that is not JSON, and an unknown name are "
      "errors") {
    CHECK(contains(from_json("{}"), "prompt_with_context is missing"));
    CHECK(contains(from_json("{}"), "prompt_without_context is missing"));
    CHECK(contains(
        from_json(
            R"({"prompt_with_context": 3, "prompt_without_context": "{instruction}{response}"})"),
        "prompt_with_context is 3"));
    CHECK(contains(from_json("[1]"), "expected an object"));
    CHECK(contains(from_json("{\"a\": "), "line 1"));
    CHECK(contains(error_of([] { (void)PromptTemplate::named_or_file("chatml"); }),
                   "expected alpaca, dolly, mistral-instruct"));
    const std::string too_long(5000, 'x');
    CHECK(contains(error_of([&] { (void)PromptTemplate::named_or_file(too_long); }),
                   "expected alpaca, dolly, mistral-instruct"));
    CHECK(PromptTemplate::named_or_file("alpaca").name() == "alpaca");
    CHECK(PromptTemplate::named_or_file("mistral-instruct").name() == "mistral-instruct");
    CHECK(contains(
        error_of([] { (void)PromptTemplate::from_strings("mine", "{instruction}{context}", ""); }),
        "0 times {response}"));
  }
}
