// Forward, loss and backward over a packed batch; with and without activation checkpointing.
#include "support/models.hpp"

#include <benchmark/benchmark.h>
#include <torch/torch.h>

namespace {

using namespace lorapp;

// range(0): 4-bit or dense layers; range(1): checkpointing. What is dense is trained.
void train_step(benchmark::State& state, const ModelConfig& config, std::int64_t sequence_length) {
  constexpr std::int64_t kSequences = 4;
  const auto model = bench::make_model(config, state.range(0) != 0);
  model->set_gradient_checkpointing(state.range(1) != 0);
  model->train();
  const auto ids = bench::random_ids(kSequences * sequence_length, config.vocab_size);
  std::vector<std::vector<std::int64_t>> sequences;
  for (std::int64_t i = 0; i < kSequences; ++i) {
    sequences.emplace_back(ids.begin() + i * sequence_length,
                           ids.begin() + (i + 1) * sequence_length);
  }
  const PackedInput input = PackedInput::pack(sequences);
  const torch::Tensor targets = input.ids.roll(-1);
  for (auto unused : state) {
    const torch::Tensor loss = at::cross_entropy_loss(model->forward(input), targets);
    loss.backward();
    benchmark::DoNotOptimize(loss);
  }
  state.SetItemsProcessed(state.iterations() * input.num_tokens());
}

BENCHMARK_CAPTURE(train_step, small, bench::small_config(), 128)
    ->ArgNames({"nf4", "checkpointing"})
    ->ArgsProduct({{0, 1}, {0, 1}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(train_step, mistral_layer, bench::mistral_layer_config(), 64)
    ->ArgNames({"nf4", "checkpointing"})
    ->ArgsProduct({{0, 1}, {0}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
