// Forward, loss and backward over a packed batch, in every mode of activation checkpointing.
// peak_MB is what a step's tensors need at a time, gradients among them.
#include "support/models.hpp"
#include "support/peak_memory.hpp"

#include <lorapp/peft/peft_model.hpp>

#include <benchmark/benchmark.h>
#include <torch/torch.h>

namespace {

using namespace lorapp;

/// A larger one, in whose layers a token's activations weigh more than what is made once a step.
ModelConfig medium_config() {
  ModelConfig config = bench::small_config();
  config.hidden_size = 1024;
  config.intermediate_size = 2816;
  config.num_hidden_layers = 8;
  config.num_attention_heads = 16;
  return config;
}

// range(0): 4-bit layers with adapters on all of them, or dense ones that are trained; range(1):
// the CheckpointingMode.
void train_step(benchmark::State& state, const ModelConfig& config, std::int64_t sequence_length) {
  constexpr std::int64_t kSequences = 4;
  const bool quantized = state.range(0) != 0;
  std::shared_ptr<CausalLM> model = bench::make_model(config, quantized);
  if (quantized) {
    model = std::make_shared<PeftModel>(
        model, LoraConfig{.r = 16, .target_modules = {"all-linear"}, .lora_dropout = 0.05});
  }
  model->set_gradient_checkpointing(static_cast<CheckpointingMode>(state.range(1)));
  model->train();
  const auto ids = bench::random_ids(kSequences * sequence_length, config.vocab_size);
  std::vector<std::vector<std::int64_t>> sequences;
  for (std::int64_t i = 0; i < kSequences; ++i) {
    sequences.emplace_back(ids.begin() + i * sequence_length,
                           ids.begin() + (i + 1) * sequence_length);
  }
  const PackedInput input = PackedInput::pack(sequences);
  const torch::Tensor targets = input.ids.roll(-1);
  const bench::PeakMemory memory;
  for (auto unused : state) {
    const torch::Tensor loss = at::cross_entropy_loss(model->forward(input), targets);
    loss.backward();
    benchmark::DoNotOptimize(loss);
  }
  state.SetItemsProcessed(state.iterations() * input.num_tokens());
  state.counters["peak_MB"] = static_cast<double>(memory.bytes()) / 1e6;
}

BENCHMARK_CAPTURE(train_step, small, bench::small_config(), 128)
    ->ArgNames({"nf4", "checkpointing"})
    ->ArgsProduct({{0, 1}, {0, 1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(train_step, medium, medium_config(), 128)
    ->ArgNames({"nf4", "checkpointing"})
    ->ArgsProduct({{1}, {0, 1, 2}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(train_step, mistral_layer, bench::mistral_layer_config(), 64)
    ->ArgNames({"nf4", "checkpointing"})
    ->ArgsProduct({{0, 1}, {0}})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

}  // namespace
