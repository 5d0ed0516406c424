// Reading of data files: JSONL and JSON arrays of the row formats, with every problem of a file in
// one Error.
#include <lorapp/data/dolly.hpp>

#include "hub_cache.hpp"
#include "json_file.hpp"

#include <fstream>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

namespace fs = std::filesystem;
using detail::describe;
using nlohmann::json;

constexpr const char* kOp = "dolly";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::string_view kJsonSpace = " \t\r\n";
// A parsed array of rows takes several times its text; JSONL is read line by line and has no such
// bound.
constexpr std::size_t kMaxArrayBytes = std::size_t{2} << 30;

constexpr const char* kDollyNames[] = {"databricks/databricks-dolly-15k",
                                       "databricks/dolly-v2-12k"};
constexpr const char* kDollyFile = "databricks-dolly-15k.jsonl";
constexpr const char* kDollyUrl =
    "https://huggingface.co/datasets/databricks/databricks-dolly-15k/resolve/main/"
    "databricks-dolly-15k.jsonl";

DataFormat format_of(const json& row) {
  if (row.contains("instruction"))
    return row.contains("output") && !row.contains("response") ? DataFormat::alpaca
                                                               : DataFormat::dolly;
  if (row.contains("messages")) return DataFormat::chat;
  if (row.contains("text")) return DataFormat::text;
  return DataFormat::automatic;
}

std::string keys_of(const json& row) {
  std::string keys;
  for (const auto& [key, value] : row.items()) keys += (keys.empty() ? "" : ", ") + key;
  return keys.empty() ? "none" : keys;
}

// The beginning of a line, as a message shows it.
std::string excerpt(std::string_view text) {
  return describe(json(std::string(text.substr(0, text.find_last_not_of(kJsonSpace) + 1))));
}

// A required string that is not empty; what is wrong is added to `wrong`.
std::string required_text(const json& row, const char* key, std::string& wrong) {
  const auto it = row.find(key);
  const char* separator = wrong.empty() ? "" : "; ";
  if (it == row.end()) {
    wrong += detail::concat(separator, key, " is missing");
  } else if (!it->is_string()) {
    wrong += detail::concat(separator, key, " is ", describe(*it), ", expected a string");
  } else if (it->get_ref<const std::string&>().empty()) {
    wrong += detail::concat(separator, key, " is empty");
  } else {
    return it->get<std::string>();
  }
  return {};
}

// A string that may be missing or null.
std::optional<std::string> optional_text(const json& row, const char* key, std::string& wrong) {
  const auto it = row.find(key);
  if (it == row.end() || it->is_null()) return std::nullopt;
  if (it->is_string()) return it->get<std::string>();
  wrong +=
      detail::concat(wrong.empty() ? "" : "; ", key, " is ", describe(*it), ", expected a string");
  return std::nullopt;
}

// The conversation of a row; what is wrong is added to `wrong`.
std::vector<ChatMessage> messages_of(const json& row, std::string& wrong) {
  std::vector<ChatMessage> messages;
  const auto list = row.find("messages");
  if (list == row.end() || !list->is_array() || list->empty()) {
    wrong = detail::concat("messages is ", list == row.end() ? "missing" : describe(*list),
                           ", expected a list of {role, content}");
    return messages;
  }
  bool answered = false;
  for (std::size_t i = 0; i < list->size(); ++i) {
    const json& message = (*list)[i];
    const std::string where = detail::concat(wrong.empty() ? "" : "; ", "messages[", i, "]");
    if (!message.is_object()) {
      wrong += detail::concat(where, " is ", describe(message), ", expected {role, content}");
      continue;
    }
    std::string own;
    ChatMessage result{.role = required_text(message, "role", own)};
    // A message without words is one; only its absence is a mistake.
    const auto content = message.find("content");
    if (content != message.end() && content->is_string()) {
      result.content = content->get<std::string>();
    } else {
      (void)required_text(message, "content", own);
    }
    for (const char* key : {"tool_calls", "function_call"}) {
      const auto it = message.find(key);
      if (it != message.end() && !it->is_null())
        own += detail::concat(own.empty() ? "" : "; ", key, " is not supported");
    }
    if (!own.empty()) wrong += where + ": " + own;
    answered = answered || result.role == "assistant";
    messages.push_back(std::move(result));
  }
  if (wrong.empty() && !answered) wrong = "messages has no answer of an assistant";
  return messages;
}

// Collects the rows of one file; `number` is the line or the array element, from 1.
class RowCollector {
 public:
  RowCollector(std::string source, std::string unit, DataFormat format)
      : problems_(kOp, source), format_(format) {
    table_.source = std::move(source);
    table_.unit = std::move(unit);
  }

  void add(const json& row, int64_t number) {
    if (!row.is_object())
      return add_problem(number, detail::concat("is ", describe(row), ", expected an object {…}"));
    if (format_ == DataFormat::automatic) format_ = format_of(row);
    if (format_ == DataFormat::automatic) {
      return add_problem(number,
                         detail::concat("has the fields ", keys_of(row),
                                        "; expected {instruction, context, response}, "
                                        "{instruction, input, output}, {messages} or {text}"));
    }
    std::string wrong;
    Instruction result;
    if (format_ == DataFormat::text) {
      result.text = required_text(row, "text", wrong);
    } else if (format_ == DataFormat::chat) {
      result.messages = messages_of(row, wrong);
    } else {
      const bool alpaca = format_ == DataFormat::alpaca;
      result.instruction = required_text(row, "instruction", wrong);
      result.context = optional_text(row, alpaca ? "input" : "context", wrong).value_or("");
      result.response = required_text(row, alpaca ? "output" : "response", wrong);
      if (!alpaca) result.category = optional_text(row, "category", wrong);
    }
    if (!wrong.empty()) return add_problem(number, wrong);
    table_.rows.push_back({std::move(result), number});
  }

  void add_problem(int64_t number, std::string_view what) {
    problems_.add(table_.unit, " ", number, ": ", what);
  }

  std::shared_ptr<const DollyDataset::Table> finish() {
    problems_.throw_if_any();
    LORAPP_CHECK(!table_.rows.empty(), kOp, table_.source, ": holds no rows");
    return std::make_shared<const DollyDataset::Table>(std::move(table_));
  }

 private:
  Problems problems_;
  DataFormat format_;
  DollyDataset::Table table_;
};

// The message of an Error about one line behind "[op] subject: ", so that it can stand in a list of
// problems; the line's own number is the file's to give.
std::string_view reason(const Error& error, std::string_view subject) {
  constexpr std::string_view kFirstLine = "line 1, ";
  std::string_view text = error.what();
  const std::size_t at = text.find(subject);
  if (at != std::string_view::npos) text.remove_prefix(at + subject.size() + 2);
  if (text.starts_with(kFirstLine)) text.remove_prefix(kFirstLine.size());
  return text;
}

std::ifstream open_data(const fs::path& path) {
  std::error_code error;
  const auto status = fs::status(path, error);
  LORAPP_CHECK(status.type() != fs::file_type::none, kOp, path.string(), ": ", error.message());
  LORAPP_CHECK(fs::exists(status), kOp, path.string(), ": no such file");
  LORAPP_CHECK(!fs::is_directory(status), kOp, path.string(),
               ": is a folder, expected a JSONL or JSON file");
  // A pipe can be read once, and from_file reads the first character twice.
  LORAPP_CHECK(fs::is_regular_file(status), kOp, path.string(),
               ": is not a regular file, expected a JSONL or JSON file");
  std::ifstream file(path, std::ios::binary);
  LORAPP_CHECK(file.is_open(), kOp, path.string(), ": cannot be opened");
  return file;
}

// The Dolly file in the local Hugging Face cache.
fs::path find_dolly_in_cache(const std::string& name) {
  const fs::path repository = detail::hub_repository("datasets", kDollyNames[0]);
  if (const auto found = detail::find_hub_snapshot(repository, kDollyFile); found.snapshot) {
    return *found.snapshot / kDollyFile;
  }
  detail::fail(
      kOp, detail::concat(name, ": is not in the local Hugging Face cache (looked for ", kDollyFile,
                          " under ", (repository / "snapshots").string(),
                          "); fetch it with\n  curl -L -O ", kDollyUrl, "\nand give the file"));
}

}  // namespace

DataFormat parse_data_format(const std::string& name) {
  if (name == "auto") return DataFormat::automatic;
  if (name == "dolly") return DataFormat::dolly;
  if (name == "alpaca") return DataFormat::alpaca;
  if (name == "text") return DataFormat::text;
  if (name == "chat") return DataFormat::chat;
  detail::fail(
      "data_format",
      detail::concat("\"", name,
                     "\" is not a data format; expected auto, dolly, alpaca, text or chat"));
}

DollyDataset::DollyDataset(std::shared_ptr<const Table> table) {
  order_.reserve(table->rows.size());
  for (const Row& row : table->rows) order_.push_back(&row);
  tables_.push_back(std::move(table));
}

DollyDataset DollyDataset::from_jsonl(const fs::path& path, DataFormat format) {
  std::ifstream file = open_data(path);
  RowCollector rows(path.string(), "line", format);
  const std::string subject = "line";
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    std::string_view text = line;
    if (number == 1 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
    if (text.find_first_not_of(kJsonSpace) == std::string_view::npos) {
      rows.add_problem(number, "is empty");
      continue;
    }
    json row;
    try {
      row = detail::parse_json(text, kOp, subject);
    } catch (const Error& error) {
      rows.add_problem(number, detail::concat("is not JSON: ", reason(error, subject), "; found ",
                                              excerpt(text)));
      continue;
    }
    rows.add(row, number);
  }
  LORAPP_CHECK(!file.bad(), kOp, path.string(), ": cannot be read to its end");
  return DollyDataset(rows.finish());
}

DollyDataset DollyDataset::from_json(const fs::path& path, DataFormat format) {
  open_data(path);
  const std::string bytes = detail::read_text_file(path, kOp, kMaxArrayBytes);
  std::string_view text = bytes;
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  json array = detail::parse_json(text, kOp, path.string());
  LORAPP_CHECK(array.is_array(), kOp, path.string(), ": holds ", describe(array),
               ", expected an array of rows […]");
  RowCollector rows(path.string(), "row", format);
  int64_t number = 0;
  for (const json& row : array) rows.add(row, ++number);
  return DollyDataset(rows.finish());
}

DollyDataset DollyDataset::from_file(const fs::path& path, DataFormat format) {
  std::error_code ignored;
  for (const char* name : kDollyNames) {
    if (path == name && !fs::exists(path, ignored))
      return from_file(find_dolly_in_cache(name), format);
  }
  std::ifstream file = open_data(path);
  char first = 0;
  while (file.get(first) && (kJsonSpace.find(first) != std::string_view::npos ||
                             kByteOrderMark.find(first) != std::string_view::npos)) {
  }
  LORAPP_CHECK(file.good(), kOp, path.string(),
               ": is empty, expected rows in JSONL or a JSON array");
  file.close();
  return first == '[' ? from_json(path, format) : from_jsonl(path, format);
}

DollyDataset DollyDataset::from_rows(std::vector<Instruction> rows) {
  Problems problems(kOp, "rows in memory");
  auto table = std::make_shared<Table>();
  table->source = "rows in memory";
  table->unit = "row";
  int64_t number = 0;
  for (Instruction& row : rows) {
    number += 1;
    if (row.text) {
      if (row.text->empty()) problems.add("row ", number, ": text is empty");
    } else if (row.messages.empty()) {
      if (row.instruction.empty()) problems.add("row ", number, ": instruction is empty");
      if (row.response.empty()) problems.add("row ", number, ": response is empty");
    }
    table->rows.push_back({std::move(row), number});
  }
  problems.throw_if_any();
  return DollyDataset(std::move(table));
}

DollyDataset DollyDataset::concatenate(const DollyDataset& other) const {
  DollyDataset result = *this;
  for (const auto& table : other.tables_) {
    if (std::find(result.tables_.begin(), result.tables_.end(), table) == result.tables_.end())
      result.tables_.push_back(table);
  }
  result.order_.insert(result.order_.end(), other.order_.begin(), other.order_.end());
  return result;
}

}  // namespace lorapp
