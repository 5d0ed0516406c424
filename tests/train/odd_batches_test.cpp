// Training steps over batches of odd lengths: examples of one token beside long ones, one of 40000
// tokens; on layers whose 4-bit weights are packed; operands at odd addresses.
#include "run.hpp"
#include "support/for_each_isa.hpp"
#include "support/odd_address.hpp"

#include <lorapp/nn/kv_cache.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/dropout.hpp>
#include <lorapp/quant/ops.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/loss.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cmath>
#include <map>
#include <random>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// A tiny model whose layers can be packed: 32 divides the rows of every weight.
ModelConfig packed_config() {
  ModelConfig config = tiny_config();
  config.hidden_size = 96;
  config.intermediate_size = 160;
  config.num_attention_heads = 6;
  config.head_dim = 16;
  return config;
}

// With weights in 4 bits, or dense ones of the same values.
PeftModel packed_peft(bool dense) {
  const auto base = tiny_model(7, packed_config());
  for_each_linear(*base, [&](const std::string& path, LinearImpl& linear) {
    if (path == "lm_head") return;
    const QuantizedTensor w = quantize_4bit(linear.dense_weight(), {.use_double_quant = true});
    if (dense) return linear.set_dense(dequantize_4bit(w));
    linear.set_quantized(w, torch::kFloat32);
    REQUIRE(linear.quantized().is_packed());
  });
  PeftModel model(base, LoraConfig{.r = 3,
                                   .target_modules = {"q_proj", "v_proj", "down_proj"},
                                   .lora_dropout = 0,
                                   .init_lora_weights = LoraInit::random});
  model.train();
  return model;
}

Example example_of(std::int64_t length, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Example example;
  for (std::int64_t t = 0; t < length; ++t) {
    example.ids.push_back(static_cast<std::int64_t>(random() % 61));
  }
  example.labels = example.ids;
  return example;
}

Batch batch_of(const std::vector<Example>& examples) {
  std::vector<const Example*> pointers;
  for (const Example& example : examples) pointers.push_back(&example);
  return collate(pointers);
}

struct Step {
  double loss = 0;
  std::map<std::string, torch::Tensor> gradients;
};

// The losses and gradients of some batches, added.
Step step_of(PeftModel& model, const std::vector<Batch>& batches) {
  Step step;
  for (const auto& item : model.named_parameters()) {
    torch::Tensor parameter = item.value();
    if (parameter.requires_grad()) parameter.mutable_grad() = torch::zeros_like(parameter);
  }
  for (const Batch& batch : batches) {
    step.loss += token_loss_backward(model, model.hidden_states(packed_input(batch)), batch.labels,
                                     /*grad_scale=*/0.01);
  }
  for (const auto& item : model.named_parameters()) {
    if (item.value().requires_grad()) step.gradients[item.key()] = item.value().grad().clone();
  }
  return step;
}

double distance(const torch::Tensor& got, const torch::Tensor& want) {
  REQUIRE(got.sizes() == want.sizes());
  return (got - want).norm().item<double>() / std::max(want.norm().item<double>(), 1e-30);
}

}  // namespace

TEST_SUITE_BEGIN("train");

TEST_CASE("odd batches: a packed step over 4-bit weights is the sum of dense steps over examples") {
  PeftModel quantized = packed_peft(/*dense=*/false), dense = packed_peft(/*dense=*/true);
  for (const std::vector<std::int64_t>& lengths :
       {std::vector<std::int64_t>{1, 37, 1, 5, 16, 64, 2}, {2}, {1, 2, 1}, {4}, {33, 1}}) {
    std::vector<Example> examples;
    std::vector<Batch> alone;
    for (const std::int64_t length : lengths) {
      examples.push_back(example_of(length, static_cast<std::uint64_t>(length)));
      alone.push_back(batch_of({examples.back()}));
    }
    Step want;
    {
      const ScopedIsa scope("scalar");
      want = step_of(dense, alone);
    }
    for_each_isa([&](const std::string&) {
      CAPTURE(lengths);
      const Step got = step_of(quantized, {batch_of(examples)});
      CHECK(got.loss == doctest::Approx(want.loss).epsilon(1e-5));
      REQUIRE(got.gradients.size() == want.gradients.size());
      // Where every scored query sees one key, the gradients of its projection are zero: beside
      // all.
      double all = 0;
      for (const auto& [name, gradient] : want.gradients) all += gradient.norm().item<double>();
      for (const auto& [key, gradient] : want.gradients) {
        const std::string& name = key;  // clang 14 captures no binding
        INFO(name);
        const double error = (got.gradients.at(name) - gradient).norm().item<double>();
        CHECK(error < 2e-5 * (gradient.norm().item<double>() + 0.1 * all));
      }
    });
  }
}

TEST_CASE("odd batches: a batch of one token has no loss, and leaves the gradients as they were") {
  PeftModel model = packed_peft(/*dense=*/false);
  for_each_isa([&](const std::string&) {
    const Step step = step_of(model, {batch_of({example_of(1, 3)})});
    CHECK(step.loss == 0);
    for (const auto& [name, gradient] : step.gradients) {
      CHECK(torch::equal(gradient, torch::zeros_like(gradient)));
    }
    // One that is scored by hand has one: every kernel, with one row.
    const Batch batch = batch_of({example_of(1, 3)});
    const torch::Tensor hidden = model.hidden_states(packed_input(batch));
    CHECK(
        std::isfinite(token_loss_backward(model, hidden, torch::full({1}, 5, torch::kInt64), 1.0)));
    double sum = 0;
    for (const auto& parameter : model.parameters()) {
      if (parameter.requires_grad()) sum += parameter.grad().abs().sum().item<double>();
    }
    CHECK(std::isfinite(sum));
    CHECK(sum > 0);
  });
}

TEST_CASE("odd batches: the trainer takes examples of one token beside others") {
  const TemporaryFolder folder;
  PeftModel model = packed_peft(/*dense=*/false);
  const auto before = values_of(model);
  TrainingArguments args = tiny_args(folder / "out");
  args.num_train_epochs = 1;
  args.warmup_steps = 0;
  std::vector<Example> examples;
  for (const std::int64_t length : {1, 40, 1, 1, 1, 1, 2, 1, 3}) {
    examples.push_back(example_of(length, static_cast<std::uint64_t>(length)));
  }
  const TrainOutput output = Trainer(model, args, TokenizedDataset(examples)).train();
  CHECK(output.global_step == 1);
  CHECK(std::isfinite(output.train_loss));
  CHECK_FALSE(same_bits(values_of(model), before));
}

TEST_CASE("odd batches: an example of 40000 tokens is trained on, and decoded to the same states") {
  constexpr std::int64_t kTokens = 40'000, kDecoded = 4;
  ModelConfig config = tiny_config();
  config.hidden_size = 32;
  config.intermediate_size = 48;
  config.num_hidden_layers = 1;
  config.num_attention_heads = 1;
  config.num_key_value_heads = 1;
  config.head_dim = 8;
  config.max_position_embeddings = kTokens;
  PeftModel model(tiny_model(7, config), LoraConfig{.r = 2, .lora_alpha = 4, .lora_dropout = 0});
  const Example example = example_of(kTokens, 1);
  const Batch batch = batch_of({example});
  double mean = 0;
  {
    const torch::NoGradGuard no_grad;
    const torch::Tensor hidden = model.hidden_states(packed_input(batch));
    mean = token_loss(model, hidden, batch.labels) / static_cast<double>(batch.num_labels);
    KvCache cache;
    const auto feed = [&](std::int64_t begin, std::int64_t end) {
      const std::vector<std::int64_t> part(example.ids.begin() + begin, example.ids.begin() + end);
      return model.hidden_states(PackedInput::single(part, cache.length()), &cache);
    };
    feed(0, kTokens - kDecoded);
    for (std::int64_t t = kTokens - kDecoded; t < kTokens; ++t) {
      CHECK(distance(feed(t, t + 1)[0], hidden[t]) < 1e-5);
    }
  }
  const TemporaryFolder folder;
  TrainingArguments args = tiny_args(folder / "out");
  args.per_device_train_batch_size = 1;
  args.num_train_epochs = 1;
  args.warmup_steps = 0;
  const auto before = values_of(model);
  const TrainOutput output = Trainer(model, args, TokenizedDataset({example})).train();
  CHECK(output.train_loss == doctest::Approx(mean).epsilon(1e-6));
  CHECK_FALSE(same_bits(values_of(model), before));
}

TEST_CASE("odd batches: loss, dropout and AdamW take operands at odd addresses") {
  for_each_isa([](const std::string&) {
    for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16, torch::kHalf}) {
      INFO(c10::toString(dtype));
      at::Generator generator = at::detail::createCPUGenerator(3);
      const torch::Tensor logits = at::randn({5, 61}, generator).to(dtype);
      const torch::Tensor labels = at::randint(61, {5}, generator, torch::kInt64);
      torch::Tensor plain = logits.clone(), moved = at_odd_address(logits);
      const double want = lorapp::detail::row_loss(plain, labels, 0.5).value();
      CHECK(lorapp::detail::row_loss(moved, at_odd_address(labels), 0.5).value() == want);
      CHECK(torch::equal(moved, plain));
      CHECK(torch::equal(seeded_dropout(at_odd_address(logits), 0.3, 7),
                         seeded_dropout(logits, 0.3, 7)));
      const auto stepped = [&](const torch::Tensor& values) {
        torch::Tensor parameter = values.detach().requires_grad_();
        // The second parameter's moments begin at an odd place of the buffer of all.
        torch::Tensor other = torch::ones({3}, dtype).requires_grad_();
        AdamW optimizer({{"b", other}, {"a", parameter}}, {});
        (parameter * logits).sum().backward();
        optimizer.accumulate();
        optimizer.step(1e-2);
        return parameter.detach();
      };
      CHECK(torch::equal(stepped(at_odd_address(logits)), stepped(logits.clone())));
    }
  });
}

TEST_SUITE_END();
