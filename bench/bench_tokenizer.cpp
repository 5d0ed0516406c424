// Tokenization speed: rows of a data file to examples, text to ids, ids to text.
// LORAPP_BENCH_DATA names a data file and LORAPP_BENCH_TOKENIZER a tokenizer folder; without them a
// small generated data set and the tests' tokenizer stand in. Names end in the number of threads.
#include <lorapp/data/dolly.hpp>
#include <lorapp/data/labels.hpp>

#include <ATen/Parallel.h>
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace {

using namespace lorapp;

const Tokenizer& tokenizer() {
  static const Tokenizer value = [] {
    const char* given = std::getenv("LORAPP_BENCH_TOKENIZER");
    return Tokenizer::from_pretrained(
        given != nullptr ? given : LORAPP_BENCH_SOURCE_DIR "/tests/data/tokenizers/llama_like");
  }();
  return value;
}

DollyDataset generated_rows() {
  std::vector<Instruction> rows;
  for (int i = 0; i < 2000; ++i) {
    std::string response;
    for (int k = 0; k < 20 + i % 60; ++k) response += "The old house stands near the river. ";
    rows.push_back({.instruction = "How many houses are there? " + std::to_string(i),
                    .context = i % 3 == 0 ? "There are many of them." : "",
                    .response = response});
  }
  return DollyDataset::from_rows(std::move(rows));
}

const DollyDataset& rows() {
  static const DollyDataset value = [] {
    const char* given = std::getenv("LORAPP_BENCH_DATA");
    return given != nullptr ? DollyDataset::from_file(given) : generated_rows();
  }();
  return value;
}

// Arguments: threads, train_on_inputs.
void BM_TokenizeDataset(benchmark::State& state) {
  const int before = at::get_num_threads();
  at::set_num_threads(static_cast<int>(state.range(0)));
  int64_t tokens = 0;
  for (auto _ : state) {
    const TokenizedDataset tokenized =
        rows().tokenize(tokenizer(), PromptTemplate::alpaca(),
                        {.max_length = 1 << 20, .train_on_inputs = state.range(1) != 0});
    tokens += tokenized.num_tokens();
  }
  at::set_num_threads(before);
  state.counters["tokens/s"] =
      benchmark::Counter(static_cast<double>(tokens), benchmark::Counter::kIsRate);
  state.counters["rows"] = static_cast<double>(rows().size());
}

void BM_ReadDataset(benchmark::State& state) {
  const char* given = std::getenv("LORAPP_BENCH_DATA");
  if (given == nullptr) return state.SkipWithError("needs LORAPP_BENCH_DATA");
  for (auto _ : state) benchmark::DoNotOptimize(DollyDataset::from_file(given).size());
}

void BM_Decode(benchmark::State& state) {
  const std::vector<int64_t> ids =
      tokenizer().encode(PromptTemplate::alpaca().render(rows()[0]).text);
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer().decode(ids));
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * ids.size()));
}

BENCHMARK(BM_TokenizeDataset)
    ->ArgsProduct({{1, 2}, {0, 1}})
    ->ArgNames({"threads", "train_on_inputs"})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime()
    ->MeasureProcessCPUTime();
BENCHMARK(BM_ReadDataset)->Unit(benchmark::kMillisecond);
BENCHMARK(BM_Decode);

}  // namespace
