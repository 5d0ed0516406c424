// Example and TokenizedDataset: token ids with the labels that say which of them are scored.
// Convention: labels are aligned with ids as in Hugging Face (not shifted); kIgnoreLabel = not
// scored.
#pragma once

#include <lorapp/error.hpp>

#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace lorapp {

/// The label of a token that takes no part in the loss.
inline constexpr int64_t kIgnoreLabel = -100;

/// One sequence. labels[i] is ids[i] or kIgnoreLabel; labels[0] is never scored, since nothing
/// predicts it.
struct Example {
  std::vector<int64_t> ids;
  std::vector<int64_t> labels;

  friend bool operator==(const Example&, const Example&) = default;
};

/// An example and whether max_length shortened it.
struct LabeledExample {
  Example example{};
  bool cut = false;
};

/// Anything the trainer can read: `size()` and `get(i)`, i in [0, size()).
template <class D>
concept ExampleSource = requires(const D& source, int64_t i) {
  { source.size() } -> std::convertible_to<int64_t>;
  { source.get(i) } -> std::convertible_to<const Example&>;
};

/// How rows become examples.
struct TokenizeOptions {
  int64_t max_length = 1024;    ///< longer examples are cut at the end
  bool append_eos = true;       ///< end each example with eos (an example that was cut has none)
  bool train_on_inputs = true;  ///< score the prompt too; otherwise the response and eos alone
};

/// Examples in memory. A value: copies share the examples.
class TokenizedDataset {
 public:
  /// Counts over all examples.
  struct Statistics {
    int64_t examples = 0;
    int64_t tokens = 0;         ///< ids
    int64_t scored_tokens = 0;  ///< labels that are not kIgnoreLabel
    int64_t cut_examples = 0;   ///< examples that max_length shortened
    int64_t longest = 0;        ///< ids of the longest example
  };

  TokenizedDataset() : TokenizedDataset(std::vector<Example>{}) {}

  explicit TokenizedDataset(std::vector<Example> examples, int64_t cut_examples = 0)
      : examples_(std::make_shared<const std::vector<Example>>(std::move(examples))) {
    statistics_.examples = static_cast<int64_t>(examples_->size());
    statistics_.cut_examples = cut_examples;
    for (const Example& example : *examples_) {
      LORAPP_CHECK(example.ids.size() == example.labels.size(), "tokenized_dataset",
                   "an example has ", example.ids.size(), " ids but ", example.labels.size(),
                   " labels");
      const auto length = static_cast<int64_t>(example.ids.size());
      statistics_.tokens += length;
      statistics_.longest = length > statistics_.longest ? length : statistics_.longest;
      for (const int64_t label : example.labels) statistics_.scored_tokens += label != kIgnoreLabel;
    }
  }

  int64_t size() const { return statistics_.examples; }
  bool empty() const { return size() == 0; }

  const Example& get(int64_t i) const {
    LORAPP_CHECK(i >= 0 && i < size(), "tokenized_dataset", "index ", i, " is outside [0, ", size(),
                 ")");
    return (*examples_)[static_cast<std::size_t>(i)];
  }

  int64_t num_tokens() const { return statistics_.tokens; }
  const Statistics& statistics() const { return statistics_; }

 private:
  std::shared_ptr<const std::vector<Example>> examples_;
  Statistics statistics_;
};

static_assert(ExampleSource<TokenizedDataset>);

}  // namespace lorapp
