// labels.hpp and DollyDataset::tokenize: which tokens stay and which are scored.
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/labels.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

#include <algorithm>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;

namespace {

const Tokenizer& tokenizer() {
  static const Tokenizer value = Tokenizer::from_pretrained(data_test::tokenizer_dir("llama_like"));
  return value;
}

const Instruction kRow{
    .instruction = "Name a river.", .context = "Rivers 日本 flow.", .response = "The Elbe 😀"};

std::vector<int64_t> scored(const Example& example) {
  std::vector<int64_t> ids;
  std::copy_if(example.labels.begin(), example.labels.end(), std::back_inserter(ids),
               [](int64_t label) { return label != kIgnoreLabel; });
  return ids;
}

Example make(const Instruction& row,
             TokenizeOptions options,
             const PromptTemplate& prompt_template = PromptTemplate::alpaca()) {
  return make_example(tokenizer(), prompt_template.render(row), options).example;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("labels: an example is bos + text + eos, and all but bos is scored") {
    const Example example = make(kRow, {});
    std::vector<int64_t> want = {1};
    const auto text = tokenizer().encode(PromptTemplate::alpaca().render(kRow).text, false);
    want.insert(want.end(), text.begin(), text.end());
    want.push_back(2);
    CHECK(example.ids == want);
    want.front() = kIgnoreLabel;
    CHECK(example.labels == want);
    CHECK(make(kRow, {.append_eos = false}).ids.back() == text.back());
  }

  TEST_CASE("labels: without train_on_inputs the response and eos are scored, and nothing else") {
    const Example example = make(kRow, {.train_on_inputs = false});
    CHECK(example.ids == make(kRow, {}).ids);
    std::vector<int64_t> ids = scored(example);
    REQUIRE(ids.back() == 2);
    ids.pop_back();
    CHECK(tokenizer().decode(ids) == "The Elbe 😀");
    const std::size_t prompt = example.ids.size() - ids.size() - 1;
    CHECK(std::all_of(example.labels.begin(),
                      example.labels.begin() + static_cast<std::ptrdiff_t>(prompt),
                      [](int64_t label) { return label == kIgnoreLabel; }));
    CHECK(scored(make(kRow, {.append_eos = false, .train_on_inputs = false})) == ids);
  }

  TEST_CASE("labels: a token that lies on both sides of the response's beginning is scored") {
    // No space and no line end between: sentencepiece may join the last letter of the prompt to the
    // response.
    const auto joined = PromptTemplate::from_strings("joined", "{context}{instruction}th{response}",
                                                     "{instruction}th{response}");
    const Instruction row{.instruction = "stand near ", .response = "e river"};
    const RenderedPrompt prompt = joined.render(row);
    const auto encoding = tokenizer().encode_with_spans(prompt.text, false);
    const std::size_t begin = prompt.response_spans.front().begin;
    const auto across =
        std::find_if(encoding.spans.begin(), encoding.spans.end(),
                     [&](const auto& span) { return span.first < begin && begin < span.second; });
    REQUIRE(across != encoding.spans.end());
    const auto index = static_cast<std::size_t>(across - encoding.spans.begin());
    const Example example = make(row, {.train_on_inputs = false}, joined);
    CHECK(example.labels[index + 1] == encoding.ids[index]);  // + 1: bos
    CHECK(example.labels[index] == kIgnoreLabel);
  }

  TEST_CASE("labels: every byte token of a response's first character is scored") {
    const Instruction row{.instruction = "i", .response = "😀日"};
    const Example example = make(row, {.append_eos = false, .train_on_inputs = false});
    CHECK(scored(example).size() == 7);
    CHECK(tokenizer().decode(scored(example)) == "😀日");
  }

  TEST_CASE(
      "labels: tokens beyond max_length fall off the end, eos with them, and eos stays if it "
      "fits") {
    const Example whole = make(kRow, {});
    const auto length = static_cast<int64_t>(whole.ids.size());
    const auto exact =
        make_example(tokenizer(), PromptTemplate::alpaca().render(kRow), {.max_length = length});
    CHECK(exact.example == whole);
    CHECK_FALSE(exact.cut);
    const auto shorter = make_example(tokenizer(), PromptTemplate::alpaca().render(kRow),
                                      {.max_length = length - 1});
    CHECK(shorter.cut);
    CHECK(shorter.example.ids == std::vector<int64_t>(whole.ids.begin(), whole.ids.end() - 1));
    CHECK(shorter.example.labels ==
          std::vector<int64_t>(whole.labels.begin(), whole.labels.end() - 1));
    CHECK(make(kRow, {.max_length = 3}).ids ==
          std::vector<int64_t>(whole.ids.begin(), whole.ids.begin() + 3));
  }

  TEST_CASE("labels: a row of plain text is scored as a whole, with and without train_on_inputs") {
    for (const bool on_inputs : {true, false}) {
      const Example example = make({.text = "The river."}, {.train_on_inputs = on_inputs});
      auto want = tokenizer().encode("The river.", false);
      want.push_back(2);
      CHECK(scored(example) == want);
      CHECK(example.labels.front() == kIgnoreLabel);
    }
  }

  TEST_CASE(
      "labels: tokenize gives each row's example, whatever the number of threads, and counts") {
    std::vector<Instruction> rows;
    for (int i = 0; i < 300; ++i) {
      rows.push_back({.instruction = "Number " + std::to_string(i),
                      .context = i % 3 ? "" : "the river",
                      .response = std::string(static_cast<std::size_t>(i % 40 + 1), 'x')});
    }
    const auto dataset = DollyDataset::from_rows(rows);
    const TokenizeOptions options{.max_length = 150, .train_on_inputs = false};
    const auto tokenized =
        dataset.tokenize(tokenizer(), PromptTemplate::mistral_instruct(), options);
    REQUIRE(tokenized.size() == 300);
    int64_t tokens = 0, labels = 0, cut = 0;
    for (int64_t i = 0; i < tokenized.size(); ++i) {
      const auto want = make_example(
          tokenizer(), PromptTemplate::mistral_instruct().render(rows[static_cast<std::size_t>(i)]),
          options);
      CHECK(tokenized.get(i) == want.example);
      tokens += static_cast<int64_t>(want.example.ids.size());
      labels += static_cast<int64_t>(scored(want.example).size());
      cut += want.cut;
    }
    CHECK(tokenized.num_tokens() == tokens);
    CHECK(tokenized.statistics().scored_tokens == labels);
    CHECK(tokenized.statistics().cut_examples == cut);
    CHECK(DollyDataset().tokenize(tokenizer()).empty());
  }

  TEST_CASE("labels: rows that lose every label to max_length are one error that lists them all") {
    std::vector<Instruction> rows;
    for (int i = 1; i <= 40; ++i) {
      const bool is_long = i == 3 || (i >= 7 && i <= 9) || i == 30 || i == 31;
      rows.push_back({.instruction = is_long ? std::string(400, 'q') : "q", .response = "r"});
    }
    const auto dataset = DollyDataset::from_rows(rows);
    const std::string message = error_of([&] {
      (void)dataset.shuffle(1).tokenize(tokenizer(), PromptTemplate::mistral_instruct(),
                                        {.max_length = 60, .train_on_inputs = false});
    });
    CAPTURE(message);
    CHECK(contains(message, "6 examples have no token left to learn from within max_length 60"));
    CHECK(contains(message, "rows 3, 7-9, 30, 31"));
    CHECK(contains(message, "raise max_length"));
    CHECK_NOTHROW((void)dataset.tokenize(tokenizer(), PromptTemplate::mistral_instruct(),
                                         {.max_length = 60}));
    CHECK(contains(error_of([&] {
                     (void)dataset.tokenize(tokenizer(), PromptTemplate::alpaca(),
                                            {.max_length = 1});
                   }),
                   "40 examples"));
    CHECK(contains(error_of([&] {
                     (void)dataset.tokenize(tokenizer(), PromptTemplate::alpaca(),
                                            {.max_length = 0});
                   }),
                   "max_length is 0"));
  }
}
