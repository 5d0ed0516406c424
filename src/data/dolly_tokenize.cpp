// DollyDataset::tokenize: rows to examples on LibTorch's threads, and the report of rows that
// max_length emptied.
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/labels.hpp>

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace lorapp {

namespace {

// "3, 7-9, 12": sorted numbers with runs drawn together, so that a long list stays readable.
std::string number_list(std::vector<int64_t> numbers) {
  std::sort(numbers.begin(), numbers.end());
  std::string text;
  for (std::size_t i = 0; i < numbers.size();) {
    std::size_t last = i;
    while (last + 1 < numbers.size() && numbers[last + 1] <= numbers[last] + 1) ++last;
    text += (text.empty() ? "" : ", ") + std::to_string(numbers[i]);
    if (last > i)
      text += (numbers[last] > numbers[i] + 1 ? "-" : ", ") + std::to_string(numbers[last]);
    i = last + 1;
  }
  return text;
}

// What a chat template does not accept in a row says which row it is.
LabeledExample make_numbered(const DollyDataset::Row& row,
                             const DollyDataset::Table& table,
                             const std::function<LabeledExample(const Instruction&)>& make) {
  try {
    return make(row.instruction);
  } catch (const Error& error) {
    if (error.op() != detail::kChatOp) throw;
    const std::string_view message(error.what());
    const std::string prefix = "[" + error.op() + "] ";
    throw Error(error.op(),
                detail::concat(table.source, ", ", table.unit, " ", row.number, ": ",
                               message.substr(message.starts_with(prefix) ? prefix.size() : 0)));
  }
}

}  // namespace

TokenizedDataset DollyDataset::tokenize(const Tokenizer& tokenizer,
                                        const PromptTemplate& prompt_template,
                                        const TokenizeOptions& options) const {
  return tokenize_each(
      [&](const Instruction& row) {
        return make_example(tokenizer, prompt_template.render(row), options);
      },
      options);
}

TokenizedDataset DollyDataset::tokenize(const Tokenizer& tokenizer,
                                        const ChatTemplate& chat_template,
                                        const TokenizeOptions& options) const {
  const PromptTemplate plain = PromptTemplate::alpaca();  // leaves rows of plain text as they are
  return tokenize_each(
      [&](const Instruction& row) {
        if (row.text) return make_example(tokenizer, plain.render(row), options);
        return tokenize_chat(tokenizer, chat_template.render(ChatTemplate::messages_of(row)),
                             options);
      },
      options);
}

TokenizedDataset DollyDataset::tokenize_each(const MakeExample& make,
                                             const TokenizeOptions& options) const {
  detail::check_max_length(options);
  std::vector<LabeledExample> labeled(order_.size());
  // A row takes about 0.1 ms, so a chunk is worth a thread's wake-up.
  constexpr int64_t kRowsPerChunk = 32;
  at::parallel_for(0, size(), kRowsPerChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = *order_[static_cast<std::size_t>(i)];
      labeled[static_cast<std::size_t>(i)] = make_numbered(row, *tables_[table_of(row)], make);
    }
  });

  std::vector<Example> examples;
  examples.reserve(labeled.size());
  std::vector<std::vector<int64_t>> lost(tables_.size());
  int64_t num_cut = 0;
  int64_t num_lost = 0;
  for (std::size_t i = 0; i < labeled.size(); ++i) {
    if (!has_label(labeled[i].example)) {
      num_lost += 1;
      lost[table_of(*order_[i])].push_back(order_[i]->number);
    }
    num_cut += labeled[i].cut;
    examples.push_back(std::move(labeled[i].example));
  }
  if (num_lost > 0) {
    std::string where;
    for (std::size_t t = 0; t < tables_.size(); ++t) {
      if (lost[t].empty()) continue;
      where += "\n  " + tables_[t]->source + ", " + tables_[t]->unit +
               (lost[t].size() == 1 ? " " : "s ") + number_list(lost[t]);
    }
    detail::fail(
        "tokenize",
        detail::concat(num_lost, num_lost == 1 ? " example has" : " examples have",
                       " no token left to learn from within max_length ", options.max_length,
                       options.train_on_inputs ? "" : " (only the response is scored)",
                       "; raise max_length, or leave these rows out:", where));
  }
  return TokenizedDataset(std::move(examples), num_cut);
}

}  // namespace lorapp
