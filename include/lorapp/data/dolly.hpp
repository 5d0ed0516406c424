// DollyDataset: rows of instruction data from JSON files, and their way to token ids.
// Convention: a value; rows are read once and shared, every operation returns a new order of the
// same rows.
#pragma once

#include <lorapp/data/chat_template.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/permutation.hpp>
#include <lorapp/data/prompt_template.hpp>
#include <lorapp/data/tokenizer.hpp>
#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

/// The fields of a data file's rows.
enum class DataFormat {
  automatic,  ///< by the fields of the first row
  dolly,      ///< {instruction, context, response, category?}
  alpaca,     ///< {instruction, input, output}
  text,       ///< {text}: no template, the whole text is scored
  chat,       ///< {messages: [{role, content}, …]}: for a ChatTemplate
};

/// "auto", "dolly", "alpaca", "text", "chat". Throws Error for another name.
LORAPP_API DataFormat parse_data_format(const std::string& name);

class DollyDataset {
 public:
  struct Split;

  /// No rows.
  DollyDataset() = default;

  /// Reads JSONL, one object a line. Throws one Error that lists every bad line of the file.
  LORAPP_API static DollyDataset from_jsonl(const std::filesystem::path& path,
                                            DataFormat format = DataFormat::automatic);

  /// Reads one JSON array of objects. Throws one Error that lists every bad row of the file.
  LORAPP_API static DollyDataset from_json(const std::filesystem::path& path,
                                           DataFormat format = DataFormat::automatic);

  /// Either of the two: a file whose first character is `[` is an array.
  ///
  /// Also takes the names databricks/databricks-dolly-15k and databricks/dolly-v2-12k (the name of
  /// a model, under which the tutorial loads the same rows): the file is then looked up in the
  /// local Hugging Face cache.
  LORAPP_API static DollyDataset from_file(const std::filesystem::path& path,
                                           DataFormat format = DataFormat::automatic);

  /// From rows in memory, checked as a file's.
  LORAPP_API static DollyDataset from_rows(std::vector<Instruction> rows);

  int64_t size() const { return static_cast<int64_t>(order_.size()); }
  bool empty() const { return order_.empty(); }

  const Instruction& operator[](int64_t i) const {
    LORAPP_CHECK(i >= 0 && i < size(), "dolly", "index ", i, " is outside [0, ", size(), ")");
    return order_[static_cast<std::size_t>(i)]->instruction;
  }

  /// The first n rows, or all if there are fewer.
  DollyDataset take(int64_t n) const {
    LORAPP_CHECK(n >= 0, "dolly", "take(", n, "): expected 0 or more");
    return slice(0, std::min(n, size()));
  }

  /// All but the first n rows.
  DollyDataset skip(int64_t n) const {
    LORAPP_CHECK(n >= 0, "dolly", "skip(", n, "): expected 0 or more");
    return slice(std::min(n, size()), size());
  }

  /// The rows for which `keep(row)` is true.
  template <std::predicate<const Instruction&> Keep>
  DollyDataset filter(Keep keep) const {
    DollyDataset result = slice(0, 0);
    for (const Row* row : order_) {
      if (keep(row->instruction)) result.order_.push_back(row);
    }
    return result;
  }

  /// The order of datasets' `shuffle(seed=seed)`.
  DollyDataset shuffle(uint64_t seed) const { return select(numpy_permutation(size(), seed)); }

  /// The split of datasets' `train_test_split(test_size, seed=seed)`: a fraction in (0, 1), rounded
  /// up, or a number of rows.
  template <class Size>
  requires std::integral<Size> || std::floating_point<Size> Split train_test_split(Size test_size,
                                                                                   uint64_t seed)
  const;

  /// These rows, then those of `other`.
  LORAPP_API DollyDataset concatenate(const DollyDataset& other) const;

  /// Renders, tokenizes and labels every row: bos + text + eos is built first, then cut at
  /// max_length.
  ///
  /// A token is scored if any of its bytes lies in a response span (all tokens with
  /// train_on_inputs, and for rows of plain text); eos counts as response, bos is never scored.
  /// Throws Error for a row that keeps no label, listing all. Works on LibTorch's intra-op threads.
  LORAPP_API TokenizedDataset
  tokenize(const Tokenizer& tokenizer,
           const PromptTemplate& prompt_template = PromptTemplate::alpaca(),
           const TokenizeOptions& options = {}) const;

  /// The same with a chat template, for conversations and for rows of instructions, which count as
  /// a question and its answer.
  ///
  /// The template puts bos and eos itself, so append_eos is of no account, but for rows of plain
  /// text, which no template changes. What looks like a special token in a message is plain text.
  /// Without train_on_inputs the assistant's answers are scored, all of a conversation's.
  LORAPP_API TokenizedDataset tokenize(const Tokenizer& tokenizer,
                                       const ChatTemplate& chat_template,
                                       const TokenizeOptions& options = {}) const;

  /// A row and its number in its file (line or array element, from 1), by which errors call it.
  struct Row {
    Instruction instruction;
    int64_t number = 0;
  };

  /// The rows of one file.
  struct Table {
    std::string source;  // path
    std::string unit;    // "line" or "row"
    std::vector<Row> rows;
  };

 private:
  explicit DollyDataset(std::shared_ptr<const Table> table);

  using MakeExample = std::function<LabeledExample(const Instruction&)>;
  TokenizedDataset tokenize_each(const MakeExample& make, const TokenizeOptions& options) const;

  // Which of tables_ a row is in.
  std::size_t table_of(const Row& row) const {
    const auto holds = [&row](const std::shared_ptr<const Table>& table) {
      const std::less<> before;  // a total order on pointers
      return !before(&row, table->rows.data()) &&
             before(&row, table->rows.data() + table->rows.size());
    };
    return static_cast<std::size_t>(std::find_if(tables_.begin(), tables_.end(), holds) -
                                    tables_.begin());
  }

  DollyDataset slice(int64_t begin, int64_t end) const {
    DollyDataset result;
    result.tables_ = tables_;
    result.order_.assign(order_.begin() + begin, order_.begin() + end);
    return result;
  }

  DollyDataset select(const std::vector<int64_t>& indices) const {
    DollyDataset result;
    result.tables_ = tables_;
    result.order_.reserve(indices.size());
    for (const int64_t i : indices) result.order_.push_back(order_[static_cast<std::size_t>(i)]);
    return result;
  }

  std::vector<std::shared_ptr<const Table>> tables_;  // keep the rows alive
  std::vector<const Row*> order_;                     // into tables_
};

/// The two parts of train_test_split.
struct DollyDataset::Split {
  DollyDataset train;
  DollyDataset test;
};

template <class Size>
requires std::integral<Size> || std::floating_point<Size> DollyDataset::Split
DollyDataset::train_test_split(Size test_size, uint64_t seed)
const {
  int64_t num_test = 0;
  if constexpr (std::floating_point<Size>) {
    LORAPP_CHECK(test_size > 0 && test_size < 1, "train_test_split", "test_size is ", test_size,
                 ", expected a fraction between 0 and 1 or a number of rows");
    num_test = static_cast<int64_t>(
        std::ceil(static_cast<double>(test_size) * static_cast<double>(size())));
  } else {
    LORAPP_CHECK(std::cmp_greater(test_size, 0), "train_test_split", "test_size is ", test_size,
                 ", expected 1 row or more");
    num_test = std::cmp_less(test_size, size()) ? static_cast<int64_t>(test_size) : size();
  }
  LORAPP_CHECK(num_test < size(), "train_test_split", "test_size ", test_size, " of ", size(),
               " rows leaves no row to train on");
  const std::vector<int64_t> order = numpy_permutation(size(), seed);
  return {.train = select({order.begin() + num_test, order.end()}),
          .test = select({order.begin(), order.begin() + num_test})};
}

}  // namespace lorapp
