// DataPlan: which examples each micro-batch and window of an epoch reads.
// Windows and micro-batches of an epoch are numbered from 0; examples by their place in the data
// set.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/permutation.hpp>
#include <lorapp/random_bits.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace lorapp {

namespace detail {

/// Any ExampleSource behind one type.
class AnyExamples {
 public:
  template <ExampleSource D>
  requires(!std::same_as<D, AnyExamples>) explicit AnyExamples(D dataset) {
    auto shared = std::make_shared<const D>(std::move(dataset));
    size_ = static_cast<std::int64_t>(shared->size());
    get_ = [shared](std::int64_t i) -> Example { return shared->get(i); };
  }

  std::int64_t size() const { return size_; }
  Example get(std::int64_t i) const { return get_(i); }

 private:
  std::int64_t size_ = 0;
  std::function<Example(std::int64_t)> get_;
};

/// A hash of what a model reads of some batches.
inline std::uint64_t hash_batches(const std::vector<Batch>& batches) {
  std::uint64_t hash = 0;
  for (const Batch& batch : batches) {
    const auto* ids = batch.ids.const_data_ptr<std::int64_t>();
    const auto* labels = batch.labels.const_data_ptr<std::int64_t>();
    for (std::int64_t t = 0; t < batch.num_tokens(); ++t) {
      hash = derive_seed(hash, static_cast<std::uint64_t>(ids[t]));
      hash = derive_seed(hash, static_cast<std::uint64_t>(labels[t]));
    }
  }
  return hash;
}

/// Examples [begin, end) of `order`, end to end.
template <class D>
Batch gather_batch(const D& source,
                   const std::vector<std::int64_t>& order,
                   std::int64_t begin,
                   std::int64_t end) {
  std::vector<Example> examples;
  examples.reserve(static_cast<std::size_t>(end - begin));
  for (std::int64_t i = begin; i < end; ++i) {
    examples.push_back(source.get(order[static_cast<std::size_t>(i)]));
  }
  std::vector<const Example*> pointers;
  pointers.reserve(examples.size());
  for (const Example& example : examples) pointers.push_back(&example);
  return collate(pointers);
}

/// Where a run's examples are: micro-batches and windows of every epoch, all numbered from 0.
struct DataPlan {
  std::int64_t num_examples = 0;
  std::int64_t batch_size = 1;
  std::int64_t accumulation = 1;
  std::uint64_t seed = 0;
  bool shuffle = true;

  static DataPlan of(const TrainingArguments& args, std::int64_t num_examples) {
    return {num_examples, args.per_device_train_batch_size, args.gradient_accumulation_steps,
            args.data_seed.value_or(args.seed), args.shuffle};
  }

  std::int64_t micro_batches() const { return (num_examples + batch_size - 1) / batch_size; }
  std::int64_t windows() const { return (micro_batches() + accumulation - 1) / accumulation; }

  /// The examples of an epoch in the order they are read.
  std::vector<std::int64_t> order(std::int64_t epoch) const {
    if (shuffle) return torch_randperm(num_examples, seed + static_cast<std::uint64_t>(epoch));
    std::vector<std::int64_t> identity(static_cast<std::size_t>(num_examples));
    std::iota(identity.begin(), identity.end(), std::int64_t{0});
    return identity;
  }

  /// The first micro-batch of a window and the one behind its last.
  std::int64_t first_micro_batch(std::int64_t window) const { return window * accumulation; }
  std::int64_t end_micro_batch(std::int64_t window) const {
    return std::min((window + 1) * accumulation, micro_batches());
  }

  /// TrainerState::epoch after a window of an epoch.
  double epoch_after(std::int64_t epoch, std::int64_t window) const {
    return static_cast<double>(epoch) +
           static_cast<double>(end_micro_batch(window)) / static_cast<double>(micro_batches());
  }

  /// The micro-batches of a window.
  template <class D>
  std::vector<Batch> read_window(const D& source,
                                 const std::vector<std::int64_t>& order,
                                 std::int64_t window) const {
    std::vector<Batch> batches;
    for (std::int64_t micro = first_micro_batch(window); micro < end_micro_batch(window); ++micro) {
      const std::int64_t begin = micro * batch_size;
      batches.push_back(
          gather_batch(source, order, begin, std::min(begin + batch_size, num_examples)));
    }
    return batches;
  }

  /// "3, 17, 5": the examples of micro-batches [first, end) of an epoch, for messages.
  std::string example_list(const std::vector<std::int64_t>& order,
                           std::int64_t first,
                           std::int64_t end) const {
    std::string text;
    for (std::int64_t i = first * batch_size; i < std::min(end * batch_size, num_examples); ++i) {
      text += (text.empty() ? "" : ", ") + std::to_string(order[static_cast<std::size_t>(i)]);
    }
    return text;
  }
};

}  // namespace detail

}  // namespace lorapp
