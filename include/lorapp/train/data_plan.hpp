// DataPlan: which examples each micro-batch and window of an epoch reads.
// Windows and micro-batches of an epoch are numbered from 0; examples by their place in the data
// set.
#pragma once

#include <lorapp/data/batch.hpp>
#include <lorapp/data/example.hpp>
#include <lorapp/data/permutation.hpp>
#include <lorapp/peft/dropout.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
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

/// A hash of what the model reads of a batch, chained to `seed`.
inline std::uint64_t hash_batch(const Batch& batch, std::uint64_t seed) {
  const auto* ids = batch.ids.const_data_ptr<std::int64_t>();
  const auto* labels = batch.labels.const_data_ptr<std::int64_t>();
  for (std::int64_t t = 0; t < batch.num_tokens(); ++t) {
    seed = derive_seed(seed, static_cast<std::uint64_t>(ids[t]));
    seed = derive_seed(seed, static_cast<std::uint64_t>(labels[t]));
  }
  return seed;
}

/// Where a run's examples are: micro-batches and windows of every epoch, all numbered from 0.
struct DataPlan {
  std::int64_t num_examples = 0;
  std::int64_t batch_size = 1;
  std::int64_t accumulation = 1;
  std::uint64_t seed = 0;
  bool shuffle = true;

  std::int64_t micro_batches() const { return (num_examples + batch_size - 1) / batch_size; }
  std::int64_t windows() const { return (micro_batches() + accumulation - 1) / accumulation; }

  /// The examples of an epoch in the order they are read.
  std::vector<std::int64_t> order(std::int64_t epoch) const {
    if (shuffle) return torch_randperm(num_examples, seed + static_cast<std::uint64_t>(epoch));
    std::vector<std::int64_t> identity(static_cast<std::size_t>(num_examples));
    std::iota(identity.begin(), identity.end(), std::int64_t{0});
    return identity;
  }
};

}  // namespace detail

}  // namespace lorapp
