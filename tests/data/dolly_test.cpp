// dolly.hpp: reading of data files, and the operations on rows.
#include <lorapp/data/dolly.hpp>

#include <lorapp/data/labels.hpp>
#include "data_support.hpp"

#include <doctest/doctest.h>

#include <sys/stat.h>
#include <cstdlib>
#include <set>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;
using data_test::TemporaryFolder;

namespace {

std::string file_error(const std::string& content, DataFormat format = DataFormat::automatic) {
  const TemporaryFolder folder;
  const auto path = folder.write("rows.jsonl", content);
  return error_of([&] { (void)DollyDataset::from_file(path, format); });
}

DollyDataset numbered(int n) {
  std::vector<Instruction> rows;
  for (int i = 0; i < n; ++i) rows.push_back({.instruction = std::to_string(i), .response = "r"});
  return DollyDataset::from_rows(std::move(rows));
}

std::vector<int> numbers(const DollyDataset& dataset) {
  std::vector<int> result;
  for (int64_t i = 0; i < dataset.size(); ++i) result.push_back(std::stoi(dataset[i].instruction));
  return result;
}

}  // namespace

TEST_SUITE("data") {
  TEST_CASE(
      "dolly: JSONL and a JSON array of the same rows read alike, with a BOM, CRLF or no last line "
      "end") {
    const TemporaryFolder folder;
    const std::string a =
        R"({"instruction": "i1", "context": "c1", "response": "r1", "category": "open_qa"})";
    const std::string b =
        R"({"instruction": "i2", "context": null, "response": "r2 \u00e9\ud83d\ude00", "other": [1]})";
    for (const std::string& content :
         {a + "\n" + b, a + "\r\n" + b + "\r\n", "\xef\xbb\xbf" + a + "\n" + b + "\n",
          "[" + a + ", " + b + "]", "\xef\xbb\xbf \n[\n" + a + ",\n" + b + "\n]\n"}) {
      CAPTURE(content);
      const auto rows = DollyDataset::from_file(folder.write("rows", content));
      REQUIRE(rows.size() == 2);
      CHECK(rows[0].instruction == "i1");
      CHECK(rows[0].context == "c1");
      CHECK(rows[0].category == "open_qa");
      CHECK(rows[1].context.empty());
      CHECK(rows[1].response == "r2 é😀");
      CHECK_FALSE(rows[1].category.has_value());
      CHECK_FALSE(rows[1].text.has_value());
    }
  }

  TEST_CASE("dolly: the format is known by the first row's fields, or given") {
    const TemporaryFolder folder;
    const auto alpaca = folder.write(
        "a.json",
        R"([{"instruction": "i", "input": "c", "output": "o"}, {"instruction": "i", "output": "o"}])");
    const auto rows = DollyDataset::from_file(alpaca);
    CHECK(rows[0].context == "c");
    CHECK(rows[0].response == "o");
    CHECK(rows[1].context.empty());
    const std::string as_dolly =
        error_of([&] { (void)DollyDataset::from_file(alpaca, DataFormat::dolly); });
    CHECK(contains(as_dolly, "row 1: response is missing"));
    CHECK(contains(as_dolly, "row 2: response is missing"));

    const auto text =
        DollyDataset::from_file(folder.write("t.jsonl", "{\"text\": \"Just text.\"}\n"));
    CHECK(text[0].text == "Just text.");
    CHECK(contains(file_error("{\"question\": 1}"),
                   "has the fields question; expected {instruction, context, response}"));
    CHECK(contains(file_error("{}"), "has the fields none"));
    CHECK(parse_data_format("auto") == DataFormat::automatic);
    CHECK(parse_data_format("dolly") == DataFormat::dolly);
    CHECK(parse_data_format("alpaca") == DataFormat::alpaca);
    CHECK(parse_data_format("text") == DataFormat::text);
    CHECK(contains(error_of([] { (void)parse_data_format("csv"); }),
                   "expected auto, dolly, alpaca, text or chat"));
  }

  TEST_CASE("dolly: one message lists every bad line with its number and what was found") {
    const std::string message = file_error(
        "{\"instruction\": \"i\", \"context\": \"\", \"response\": \"r\"}\n"
        "\n"
        "{\"instruction\": \"i\", \"response\": \n"
        "{\"instruction\": \"\", \"response\": \"r\"}\n"
        "{\"response\": \"r\"}\n"
        "{\"instruction\": 7, \"response\": null}\n"
        "{\"instruction\": \"i\", \"context\": [1, 2], \"response\": \"r\", \"category\": 3}\n"
        "[1, 2]\n"
        "  \t \n"
        "not json\n"
        "{\"instruction\": \"i\", \"response\": \"r\"} {}\n"
        "{\"instruction\": \"a\\ud800b\", \"response\": \"r\"}\n"
        "{\"instruction\": \"\xff\", \"response\": \"r\"}\n");
    CAPTURE(message);
    CHECK(contains(message, "rows.jsonl: 12 problems"));
    for (const char* part :
         {"line 2: is empty", "line 3: is not JSON", "line 4: instruction is empty",
          "line 5: instruction is missing",
          "line 6: instruction is 7, expected a string; response is null, expected a string",
          "line 7: context is a list of 2, expected a string; category is 3",
          "line 8: is a list of 2, expected an object", "line 9: is empty", "line 10: is not JSON",
          "found \"not json\"", "line 11: is not JSON", "line 12: is not JSON",
          "line 13: is not JSON", "line 3: is not JSON: column "}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
    // Line 1 is good, and no line of the file is called the first of itself.
    CHECK_FALSE(contains(message, "line 1:"));
    CHECK_FALSE(contains(message, "line 1,"));
  }

  TEST_CASE("dolly: one message lists every bad row of an array") {
    const std::string message = file_error(
        R"([{"instruction": "i", "context": "", "response": "r"}, 3, null, {"instruction": "i", "response": ""}])");
    CAPTURE(message);
    CHECK(contains(message, "row 2: is 3, expected an object"));
    CHECK(contains(message, "row 3: is null"));
    CHECK(contains(message, "row 4: response is empty"));
    CHECK(contains(file_error("[{\"instruction\": \"i\",\n \"response\" \"r\"}]"), "line 2"));
    CHECK(contains(file_error("[]"), "holds no rows"));
    CHECK(contains(file_error("[] trailing"), "rows.jsonl"));
  }

  TEST_CASE("dolly: an empty file, no file, a folder and a pipe are errors that name the path") {
    CHECK(contains(file_error(""), "rows.jsonl: is empty"));
    CHECK(contains(file_error(" \n \n"), "rows.jsonl: is empty"));
    const TemporaryFolder folder;
    CHECK(contains(error_of([&] { (void)DollyDataset::from_file(folder.path() / "none.jsonl"); }),
                   "none.jsonl: no such file"));
    CHECK(contains(error_of([&] { (void)DollyDataset::from_file(folder.path()); }), "is a folder"));
    CHECK(contains(error_of([&] { (void)DollyDataset::from_json(folder.path()); }), "is a folder"));
    const auto pipe = folder.path() / "pipe";
    REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
    CHECK(contains(error_of([&] { (void)DollyDataset::from_file(pipe); }),
                   "pipe: is not a regular file"));
    const std::string too_long(5000, 'x');
    CHECK(contains(error_of([&] { (void)DollyDataset::from_file(too_long); }), too_long));
    CHECK(contains(
        error_of([] {
          (void)DollyDataset::from_rows({{.instruction = "", .response = ""}, {.text = ""}});
        }),
        "3 problems"));
  }

  TEST_CASE(
      "dolly: a hub name means the file in the local cache, or an error that says how to get it") {
    const TemporaryFolder folder;
    const char* before = std::getenv("HF_HUB_CACHE");
    const std::string saved = before == nullptr ? "" : before;
    ::setenv("HF_HUB_CACHE", folder.path().c_str(), 1);
    for (const char* name : {"databricks/databricks-dolly-15k", "databricks/dolly-v2-12k"}) {
      const std::string message = error_of([&] { (void)DollyDataset::from_file(name); });
      CAPTURE(message);
      CHECK(contains(message, name));
      CHECK(contains(message, "https://huggingface.co/datasets/databricks/databricks-dolly-15k"));
    }
    folder.write("datasets--databricks--databricks-dolly-15k/refs/main", "abc\n");
    folder.write(
        "datasets--databricks--databricks-dolly-15k/snapshots/abc/databricks-dolly-15k.jsonl",
        "{\"instruction\": \"i\", \"context\": \"\", \"response\": \"r\"}\n");
    CHECK(DollyDataset::from_file("databricks/dolly-v2-12k").size() == 1);
    before == nullptr ? ::unsetenv("HF_HUB_CACHE") : ::setenv("HF_HUB_CACHE", saved.c_str(), 1);
  }

  TEST_CASE("dolly: take, skip, filter and concatenate keep the order and leave the source alone") {
    const auto rows = numbered(6);
    CHECK(numbers(rows.take(2)) == std::vector<int>{0, 1});
    CHECK(numbers(rows.skip(4)) == std::vector<int>{4, 5});
    CHECK(numbers(rows.skip(1).take(2)) == std::vector<int>{1, 2});
    CHECK(rows.take(100).size() == 6);
    CHECK(rows.skip(100).empty());
    CHECK(numbers(rows.filter([](const Instruction& row) { return row.instruction > "2"; })) ==
          std::vector<int>{3, 4, 5});
    CHECK(numbers(rows.take(1).concatenate(rows.skip(5)).concatenate(numbered(2))) ==
          std::vector<int>{0, 5, 0, 1});
    CHECK(rows.size() == 6);
    CHECK_THROWS_AS((void)rows.take(-1), Error);
    CHECK_THROWS_AS((void)rows.skip(-1), Error);
    CHECK_THROWS_AS((void)rows[6], Error);
    CHECK(DollyDataset().empty());
  }

  TEST_CASE("dolly: the rows outlive the data set they were taken from") {
    DollyDataset part;
    {
      const auto rows = numbered(3);
      part = rows.skip(2);
    }
    CHECK(part[0].instruction == "2");
  }

  TEST_CASE("dolly: shuffle and train_test_split give the orders of the datasets package") {
    const auto rows = numbered(10);
    CHECK(numbers(rows.shuffle(42)) == std::vector<int>{5, 6, 0, 7, 3, 2, 4, 9, 1, 8});
    const auto split = rows.train_test_split(0.25, 42);  // 2.5 rows: rounded up
    CHECK(numbers(split.test) == std::vector<int>{5, 6, 0});
    CHECK(numbers(split.train) == std::vector<int>{7, 3, 2, 4, 9, 1, 8});
    CHECK(numbers(rows.train_test_split(2, 42).test) == std::vector<int>{5, 6});
    for (const double bad : {0.0, 1.0, -0.5, 1.5})
      CHECK_THROWS_AS((void)rows.train_test_split(bad, 0), Error);
    for (const int bad : {0, 10, 11, -3})
      CHECK_THROWS_AS((void)rows.train_test_split(bad, 0), Error);
    CHECK(contains(error_of([&] { (void)rows.take(1).train_test_split(0.5, 0); }),
                   "leaves no row to train on"));
  }

  TEST_CASE("dolly: conversations are read from messages, and their problems are named") {
    const TemporaryFolder folder;
    const std::string row =
        R"({"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "weight": 1, "tool_calls": null}]})";
    for (const DataFormat format : {DataFormat::automatic, DataFormat::chat}) {
      const auto rows = DollyDataset::from_file(folder.write("rows.jsonl", row + "\n"), format);
      const std::vector<ChatMessage> want = {{.role = "system", .content = ""},
                                             {.role = "user", .content = "q"},
                                             {.role = "assistant", .content = "a"}};
      CHECK((rows[0].messages == want));
      CHECK(rows[0].instruction.empty());
    }
    CHECK(parse_data_format("chat") == DataFormat::chat);
    CHECK(contains(error_of([] { (void)parse_data_format("sharegpt"); }), "alpaca, text or chat"));
    const std::string message = file_error(
        "{\"messages\": []}\n{\"messages\": [3, {\"role\": \"assistant\"}]}\n"
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}]}\n"
        "{\"messages\": [{\"role\": 1, \"content\": [2], \"tool_calls\": [{}]}]}\n{\"text\": "
        "\"x\"}\n");
    CAPTURE(message);
    for (const char* part : {"line 1: messages is a list of 0, expected a list of {role, content}",
                             "line 2: messages[0] is 3", "messages[1]: content is missing",
                             "line 3: messages has no answer of an assistant",
                             "line 4: messages[0]: role is 1, expected a string; content is a list "
                             "of 1, expected a string; "
                             "tool_calls "
                             "is not supported",
                             "line 5: messages is missing"}) {
      CAPTURE(part);
      CHECK(contains(message, part));
    }
  }

  TEST_CASE("dolly: conversations and instructions go through a chat template, text does not") {
    const auto t = Tokenizer::from_pretrained(data_test::tokenizer_dir("json_llama3"));
    const auto chat = ChatTemplate::built_in("llama3", t);
    const auto rows =
        DollyDataset::from_rows({{.instruction = "The river", .context = "near", .response = "old"},
                                 {.messages = {{.role = "user", .content = "The river\n\nnear"},
                                               {.role = "assistant", .content = "old"}}},
                                 {.text = "The river"}});
    const TokenizeOptions answers{.max_length = 100, .train_on_inputs = false};
    const auto examples = rows.tokenize(t, chat, answers);
    CHECK(examples.get(0) == examples.get(1));
    CHECK(examples.get(1) == tokenize_chat(t, chat.render(rows[1].messages), answers).example);
    CHECK(examples.get(2) == rows.skip(2).tokenize(t, PromptTemplate::alpaca(), answers).get(0));
    CHECK(contains(error_of([&] { (void)rows.tokenize(t, PromptTemplate::alpaca(), answers); }),
                   "alpaca: a row of messages needs a chat template"));
    const auto wrong =
        DollyDataset::from_rows({{.messages = {{.role = "assistant", .content = "a"}}}});
    CHECK(contains(
        error_of([&] { (void)wrong.tokenize(t, ChatTemplate::built_in("llama2", t), answers); }),
        "[chat_template] rows in memory, row 1: llama2, line "));
  }
}
