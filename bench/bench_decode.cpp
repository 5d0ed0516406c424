// Decoding one token with a KV cache, and the pass over a prompt before it.
#include "support/models.hpp"

#include <benchmark/benchmark.h>
#include <torch/torch.h>

namespace {

using namespace lorapp;

// range(0): 4-bit or dense; range(1): tokens in the cache.
void decode(benchmark::State& state, const ModelConfig& config) {
  const auto model = bench::make_model(config, state.range(0) != 0);
  const torch::NoGradGuard no_grad;
  const std::int64_t length = state.range(1);
  KvCache cache;
  model->forward(PackedInput::single(bench::random_ids(length, config.vocab_size)), &cache);
  for (auto unused : state) {
    benchmark::DoNotOptimize(model->forward(PackedInput::single({5}, length), &cache));
    cache.truncate(length);
  }
  state.SetItemsProcessed(state.iterations());
}

void prefill(benchmark::State& state, const ModelConfig& config) {
  const auto model = bench::make_model(config, state.range(0) != 0);
  const torch::NoGradGuard no_grad;
  const PackedInput input =
      PackedInput::single(bench::random_ids(state.range(1), config.vocab_size));
  KvCache cache;
  for (auto unused : state) {
    benchmark::DoNotOptimize(model->forward(input, &cache));
    cache.reset();
  }
  state.SetItemsProcessed(state.iterations() * state.range(1));
}

BENCHMARK_CAPTURE(decode, small, bench::small_config())
    ->ArgNames({"nf4", "length"})
    ->ArgsProduct({{0, 1}, {32, 512}})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(decode, mistral_layer, bench::mistral_layer_config())
    ->ArgNames({"nf4", "length"})
    ->ArgsProduct({{0, 1}, {512}})
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(prefill, small, bench::small_config())
    ->ArgNames({"nf4", "tokens"})
    ->ArgsProduct({{0, 1}, {64, 512}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
