// example.hpp and batch.hpp: statistics, and examples laid end to end.
#include <lorapp/data/batch.hpp>

#include "data_support.hpp"

#include <doctest/doctest.h>

using namespace lorapp;
using data_test::contains;
using data_test::error_of;

namespace {

std::vector<int64_t> values(const torch::Tensor& tensor) {
  const int64_t* data = tensor.const_data_ptr<int64_t>();
  return {data, data + tensor.numel()};
}

constexpr int64_t kNone = kIgnoreLabel;

}  // namespace

TEST_SUITE("data") {
  TEST_CASE("batch: collate lays examples end to end and shifts labels within each") {
    const Example a{.ids = {1, 5, 6, 2}, .labels = {kNone, kNone, 6, 2}};
    const Example b{.ids = {1, 2}, .labels = {kNone, 2}};
    const Example c{.ids = {9}, .labels = {9}};
    const std::vector<const Example*> examples = {&a, &b, &c};
    const Batch batch = collate(examples);

    CHECK(values(batch.ids) == std::vector<int64_t>{1, 5, 6, 2, 1, 2, 9});
    CHECK(batch.cu_seqlens == std::vector<int64_t>{0, 4, 6, 7});
    CHECK(values(batch.positions) == std::vector<int64_t>{0, 1, 2, 3, 0, 1, 0});
    CHECK(values(batch.labels) == std::vector<int64_t>{kNone, 6, 2, kNone, 2, kNone, kNone});
    CHECK(batch.num_labels == 3);
    CHECK(batch.num_tokens() == 7);
    CHECK(batch.num_examples() == 3);
    for (const auto& tensor : {batch.ids, batch.positions, batch.labels}) {
      CHECK((tensor.scalar_type() == torch::kInt64));
      CHECK(tensor.is_contiguous());
    }
  }

  TEST_CASE("batch: no examples, an empty example and unequal lengths are errors") {
    CHECK(contains(error_of([] { (void)collate({}); }), "at least one example"));
    const Example good{.ids = {1, 2}, .labels = {kNone, 2}};
    const Example empty;
    const Example uneven{.ids = {1, 2}, .labels = {2}};
    const std::vector<const Example*> with_empty = {&good, &empty};
    const std::vector<const Example*> with_uneven = {&uneven};
    CHECK(contains(error_of([&] { (void)collate(with_empty); }),
                   "example 1 of the batch has no tokens"));
    CHECK(contains(error_of([&] { (void)collate(with_uneven); }), "2 ids but 1 labels"));
  }

  TEST_CASE("batch: a TokenizedDataset counts its tokens and checks its indices") {
    const TokenizedDataset dataset(
        {{.ids = {1, 5, 2}, .labels = {kNone, 5, 2}}, {.ids = {1, 2}, .labels = {kNone, 2}}}, 1);
    CHECK(dataset.size() == 2);
    CHECK(dataset.num_tokens() == 5);
    CHECK(dataset.statistics().scored_tokens == 3);
    CHECK(dataset.statistics().cut_examples == 1);
    CHECK(dataset.statistics().longest == 3);
    CHECK(dataset.get(1).ids == std::vector<int64_t>{1, 2});
    CHECK_THROWS_AS((void)dataset.get(2), Error);
    CHECK_THROWS_AS((void)dataset.get(-1), Error);
    CHECK(TokenizedDataset().empty());
    CHECK_THROWS_AS((void)TokenizedDataset(std::vector<Example>{{.ids = {1}, .labels = {}}}),
                    Error);

    const TokenizedDataset copy = dataset;  // NOLINT: a copy on purpose
    CHECK(&copy.get(0) == &dataset.get(0));
  }
}
