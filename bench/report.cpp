// lorapp's own figures for bench/report.py: one case a process, results as JSON lines on stdout.
//   bench_report CASE [KEY=VALUE …]
// Cases and their options are in run_case(). Ceilings are measured in turn with what they limit.
#include "support/ceilings.hpp"
#include "support/mistral_shapes.hpp"
#include "support/models.hpp"
#include "support/report_options.hpp"

#include <lorapp/lorapp.hpp>

#include <functional>
#include <iostream>
#include <optional>

using namespace lorapp;
using namespace lorapp::bench;

namespace {

at::ScalarType dtype_of(const std::string& name) {
  LORAPP_CHECK(name == "bf16" || name == "f32", "bench_report", "dtype ", name,
               "; expected bf16 or f32");
  return name == "bf16" ? at::kBFloat16 : at::kFloat;
}

/// What limits products in `dtype` with an instruction set: f32 multiply-adds where the set has no
/// product of bf16. Nothing: no ceiling is measured for it.
std::optional<Loop> ceiling_of(const std::string& isa, at::ScalarType dtype) {
  if (isa == "avx2") return Loop::fma_f32_avx2;
  if (!isa.starts_with("avx512")) return std::nullopt;
  return isa == "avx512bf16" && dtype == at::kBFloat16 ? Loop::dot_bf16_avx512
                                                       : Loop::fma_f32_avx512;
}

// ---- products ------------------------------------------------------------------------------

/// Work that is timed: it returns its own seconds, so that what prepares it is not counted.
struct Work {
  std::string name;
  double flops;
  std::function<double()> once;
  std::vector<double> rates = {};

  void sample(double least_seconds) {
    double seconds = 0;
    int count = 0;
    do {
      seconds += once();
      ++count;
    } while (seconds < least_seconds);
    rates.push_back(flops * count / seconds);
  }
};

std::function<double()> timed(std::function<at::Tensor()> f) {
  return [f = std::move(f)] {
    const at::NoGradGuard no_grad;
    const Stopwatch watch;
    benchmark::DoNotOptimize(f());
    return watch.seconds();
  };
}

/// linear_4bit and at::linear on one shape, each way; options as in linear().
void linear_of_shape(const Options& options,
                     const std::string& isa,
                     const std::string& dtype_name,
                     Shape shape) {
  const at::ScalarType dtype = dtype_of(dtype_name);
  const ScopedIsa scope(isa);
  const QuantizedTensor w = quantize_4bit(random_weight(shape, at::kBFloat16)).packed();
  const at::Tensor dense = dequantize_4bit(w, dtype);
  const auto threads = static_cast<int>(options.number("threads", at::get_num_threads()));
  const auto rounds = options.number("rounds", 5);
  const auto least = static_cast<double>(options.number("milliseconds", 40)) / 1000;
  const std::optional<Loop> loop = ceiling_of(isa, dtype);
  for (const std::int64_t rows : options.numbers("rows", {32, 128, 512})) {
    const at::Tensor x = random_weight({rows, shape.in}, dtype);
    const at::Tensor dy = random_weight({rows, shape.out}, dtype);
    const double flops = 2.0 * static_cast<double>(rows * shape.in * shape.out);
    const auto gradient = [&] {
      at::Tensor leaf = x.detach().requires_grad_();
      const at::Tensor y = linear_4bit(leaf, w, {}, dtype);
      const Stopwatch watch;
      y.backward(dy);
      return watch.seconds();
    };
    std::vector<Work> works = {
        {"forward", flops, timed([&] { return linear_4bit(x, w, {}, dtype); })},
        {"gradient", flops, gradient},
        {"dense_forward", flops, timed([&] { return at::linear(x, dense); })},
        {"dense_gradient", flops, timed([&] { return at::matmul(dy, dense); })}};
    std::vector<double> ceilings;
    for (Work& work : works) work.once();
    for (std::int64_t round = 0; round < rounds; ++round) {
      if (loop) ceilings.push_back(flops_of(*loop, threads, 3));
      for (Work& work : works) work.sample(least);
    }
    const std::string prefix = "linear." + dtype_name + "." + isa + "." + name_of(shape) + ".rows" +
                               std::to_string(rows) + ".";
    for (const Work& work : works) print(prefix + work.name, median(work.rates), "flop/s");
    if (loop) print(prefix + "ceiling", median(ceilings), "flop/s");
  }
}

void linear(const Options& options) {
  const std::vector<std::string> isas = available_isas();
  const auto largest = options.number("largest", 1 << 30);  // elements of a weight
  for (const std::string& isa : isas) {
    // The best set, and AVX2 in f32.
    if (isa != isas.front() && isa != "avx2") continue;
    for (const std::string dtype : {"bf16", "f32"}) {
      if (isa != isas.front() && dtype == "bf16") continue;
      for (const Shape shape : kMistralShapes) {
        if (shape.in * shape.out <= largest) linear_of_shape(options, isa, dtype, shape);
      }
    }
  }
}

void quantize(const Options& options) {
  at::set_num_threads(1);
  const auto rounds = options.number("rounds", 5);
  const auto largest = options.number("largest", 1 << 30);
  for (const Shape shape : kMistralShapes) {
    if (shape.in * shape.out > largest) continue;
    const at::Tensor w = random_weight(shape, at::kBFloat16);
    std::vector<double> rates;
    quantize_4bit(w);
    for (std::int64_t round = 0; round < rounds; ++round) {
      const Stopwatch watch;
      benchmark::DoNotOptimize(quantize_4bit(w));
      rates.push_back(static_cast<double>(w.nbytes()) / watch.seconds());
    }
    print("quantize." + name_of(shape), median(rates), "byte/s");
  }
}

// ---- models --------------------------------------------------------------------------------

/// Writes a Mistral of any size with random bf16 weights.
void make_random_model(const Options& options) {
  ModelConfig config;
  config.hidden_size = options.number("hidden", config.hidden_size);
  config.intermediate_size = options.number("ffn", config.intermediate_size);
  config.num_hidden_layers = options.number("layers", 2);
  config.num_attention_heads = options.number("heads", config.num_attention_heads);
  config.num_key_value_heads = options.number("kv_heads", config.num_key_value_heads);
  config.vocab_size = options.number("vocab", config.vocab_size);
  config.dtype = at::kBFloat16;
  CausalLM::from_config(config, /*seed=*/1)->save_pretrained(options.text("folder"));
}

std::shared_ptr<CausalLM> load_nf4(const Options& options) {
  const at::ScalarType dtype = dtype_of(options.text("dtype", "bf16"));
  return CausalLM::from_pretrained(options.text("folder"),
                                   {.quant_config = QuantConfig{.compute_dtype = dtype},
                                    .dtype = dtype,
                                    .head_8bit = options.number("head", 16) == 8});
}

LoraConfig lora() {
  return {.r = 16,
          .lora_alpha = 32,
          .target_modules = {"q_proj", "v_proj"},
          .lora_dropout = 0.05,
          .task_type = "CAUSAL_LM"};
}

/// `tokens` tokens in sequences of `length`, all scored but the first of each.
Batch random_batch(std::int64_t tokens, std::int64_t length, std::int64_t vocab_size) {
  const std::vector<std::int64_t> ids = random_ids(tokens, vocab_size);
  std::vector<Example> examples;
  for (std::int64_t begin = 0; begin < tokens; begin += length) {
    const std::vector<std::int64_t> part(ids.begin() + begin,
                                         ids.begin() + std::min(tokens, begin + length));
    examples.push_back({part, part});
  }
  std::vector<const Example*> pointers;
  for (const Example& example : examples) pointers.push_back(&example);
  return collate(pointers);
}

/// A model under training, stepped as Trainer does.
class Training {
 public:
  explicit Training(const Options& options)
      : model_(load_nf4(options), lora()), optimizer_(trained_parameters(model_), {}) {
    model_.train();
  }

  /// Seconds of one step.
  double step(const Batch& batch) {
    const Stopwatch watch;
    optimizer_.zero_grad();
    model_.seed_dropout(++seed_);
    const torch::Tensor hidden = model_.hidden_states(packed_input(batch));
    const double sum = token_loss_backward(model_, hidden, batch.labels,
                                           1.0 / static_cast<double>(batch.num_labels));
    optimizer_.accumulate();
    optimizer_.step(2e-4, clip_factor(optimizer_.grad_norm(), 1.0));
    const double seconds = watch.seconds();
    LORAPP_CHECK(std::isfinite(sum), "bench_report", "the loss is ", sum);
    return seconds;
  }

  std::int64_t vocab_size() const { return model_.config().vocab_size; }

 private:
  PeftModel model_;
  AdamW optimizer_;
  std::uint64_t seed_ = 0;
};

void train(const Options& options) {
  Training training(options);
  const std::int64_t length = options.number("length", 256);
  const Batch batch =
      random_batch(options.number("sequences", 4) * length, length, training.vocab_size());
  training.step(batch);
  std::vector<double> rates;
  for (std::int64_t i = 0; i < options.number("steps", 3); ++i) {
    rates.push_back(static_cast<double>(batch.num_tokens()) / training.step(batch));
  }
  print("train", median(rates), "token/s");
  print("peak", static_cast<double>(peak_memory_bytes()), "byte");
}

/// Sequences of 128 tokens in batches that grow; then one batch with one thread and with all.
void growth(const Options& options) {
  Training training(options);
  const auto rounds = options.number("rounds", 3);
  const int threads = at::get_num_threads();
  std::vector<std::pair<std::string, std::function<double()>>> works;
  std::vector<Batch> batches;
  const std::vector<std::int64_t> sizes = options.numbers("tokens", {128, 512, 2048, 8192});
  for (const std::int64_t tokens : sizes) {
    works.emplace_back("growth.tokens" + std::to_string(tokens),
                       [&training, batch = random_batch(tokens, 128, training.vocab_size())] {
                         return static_cast<double>(batch.num_tokens()) / training.step(batch);
                       });
  }
  const Batch batch =
      random_batch(options.number("thread_tokens", 1024), 128, training.vocab_size());
  for (const int count : {1, threads}) {
    works.emplace_back("growth.threads" + std::to_string(count), [&, count] {
      at::set_num_threads(count);
      const double seconds = training.step(batch);
      at::set_num_threads(threads);
      return static_cast<double>(batch.num_tokens()) / seconds;
    });
  }
  std::vector<std::vector<double>> rates(works.size());
  works.front().second();
  for (std::int64_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < works.size(); ++i) rates[i].push_back(works[i].second());
  }
  for (std::size_t i = 0; i < works.size(); ++i) {
    print(works[i].first, median(rates[i]), "token/s");
  }
}

/// The tutorial's recipe over the first rows of a data file.
void tutorial(const Options& options) {
  const Tokenizer tokenizer = Tokenizer::from_pretrained(options.text("tokenizer"));
  const TokenizedDataset examples = DollyDataset::from_file(options.text("data"))
                                        .take(options.number("rows", 96))
                                        .tokenize(tokenizer, PromptTemplate::alpaca(),
                                                  {.max_length = 1024, .train_on_inputs = true});
  PeftModel model(load_nf4(options), lora());
  Trainer trainer(model,
                  TrainingArguments{.output_dir = options.text("output"),
                                    .num_train_epochs = 1,
                                    .overwrite_output_dir = true,
                                    .save_strategy = "no"},
                  examples);
  const TrainOutput result = trainer.train();
  print("tutorial.samples", result.train_samples_per_second, "sample/s");
  print("tutorial.tokens", static_cast<double>(examples.num_tokens()) / result.train_runtime,
        "token/s");
  print("tutorial.peak", static_cast<double>(peak_memory_bytes()), "byte");
}

// ---- generation ----------------------------------------------------------------------------

struct Rates {
  std::vector<double> prefill, decode;
};

/// Tokens a second of a prompt, whose last token alone reaches the head, and of tokens behind one.
void generate_once(
    CausalLM& model, std::int64_t prompt, std::int64_t context, std::int64_t count, Rates& rates) {
  const auto next = [&](const std::vector<std::int64_t>& ids, std::int64_t at, KvCache& cache) {
    const torch::Tensor hidden = model.hidden_states(PackedInput::single(ids, at), &cache);
    return model.lm_head(hidden[-1]).argmax().item<std::int64_t>();
  };
  const std::vector<std::int64_t> ids = random_ids(prompt, model.config().vocab_size);
  KvCache cache;
  const Stopwatch prefill;
  next(ids, 0, cache);
  rates.prefill.push_back(static_cast<double>(prompt) / prefill.seconds());
  cache.reset();
  std::int64_t token = next({ids.begin(), ids.begin() + context}, 0, cache);
  const Stopwatch decode;
  for (std::int64_t i = 0; i < count; ++i) token = next({token}, context + i, cache);
  rates.decode.push_back(static_cast<double>(count) / decode.seconds());
}

void generation(const Options& options) {
  const auto base = load_nf4(options);
  const at::ScalarType dtype = dtype_of(options.text("dtype", "bf16"));
  // What a token has to read: every weight once, but one row of the embedding.
  double weight_bytes = 0, layer_weights = 0, head_weights = 0;
  for_each_linear(*base, [&](const std::string& path, LinearImpl& layer) {
    const double weights = static_cast<double>(layer.in_features() * layer.out_features());
    weight_bytes += static_cast<double>(layer.is_quantized() ? layer.quantized().nbytes()
                                        : layer.is_int8()    ? layer.int8().nbytes()
                                                             : layer.dense_weight().nbytes());
    (path == "lm_head" ? head_weights : layer_weights) += weights;
  });
  PeftModel model(base, lora());
  model.eval();
  const torch::NoGradGuard no_grad;
  const auto threads = static_cast<int>(options.number("threads", at::get_num_threads()));
  const std::int64_t prompt = options.number("prompt", 512);
  const std::int64_t context = std::min(prompt, options.number("context", 64));
  const std::int64_t count = options.number("tokens", 40);
  const std::optional<Loop> loop = ceiling_of(active_isa(), dtype);
  const Pages pages(buffer_bytes(), /*huge=*/true, threads);
  Rates plain, adapted, unused;
  std::vector<double> bandwidth, flops;
  generate_once(model, std::min<std::int64_t>(prompt, 32), 4, 2, unused);
  for (std::int64_t round = 0; round < options.number("rounds", 3); ++round) {
    bandwidth.push_back(read_bandwidth(pages, threads, /*fetch=*/true, 1));
    if (loop) flops.push_back(flops_of(*loop, threads, 3));
    {
      const PeftModel::AdapterDisabled base_alone(model);
      generate_once(model, prompt, context, count, plain);
    }
    generate_once(model, prompt, context, count, adapted);
  }
  print("decode", median(plain.decode), "token/s");
  print("decode_adapter", median(adapted.decode), "token/s");
  print("prefill", median(plain.prefill), "token/s");
  print("prefill_adapter", median(adapted.prefill), "token/s");
  print("bytes_per_token", weight_bytes, "byte");
  print("read_bandwidth", median(bandwidth), "byte/s");
  print("flops_per_prompt_token", 2 * (layer_weights + head_weights / static_cast<double>(prompt)),
        "flop");
  if (loop) print("flops_ceiling", median(flops), "flop/s");
}

int run_case(int argc, char** argv) {
  const std::map<std::string, void (*)(const Options&)> cases = {
      {"linear", linear},                 // rows= rounds= milliseconds= largest= threads=
      {"quantize", quantize},             // rounds= largest=; one thread
      {"make_model", make_random_model},  // folder= hidden= ffn= layers= heads= kv_heads= vocab=
      {"train", train},                   // folder= dtype= sequences= length= steps=
      {"growth", growth},                 // folder= dtype= tokens= thread_tokens= rounds=
      {"tutorial", tutorial},             // folder= dtype= tokenizer= data= rows= output=
      {"generation", generation},  // folder= dtype= head= prompt= context= tokens= rounds= threads=
  };
  const auto found = argc > 1 ? cases.find(argv[1]) : cases.end();
  if (found == cases.end()) {
    std::cerr << "usage: bench_report CASE [KEY=VALUE …]; cases:";
    for (const auto& each : cases) std::cerr << ' ' << each.first;
    std::cerr << '\n';
    return 2;
  }
  const Options options(argc, argv, 2);
  const std::int64_t threads = options.number("threads", at::get_num_threads());
  at::set_num_threads(static_cast<int>(threads));
  std::cerr << "isa " << active_isa() << ", " << threads << " threads\n";
  found->second(options);
  options.check_all_used();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run_case(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
