// The modes of activation checkpointing on 4-bit models with adapters: the same bits, and what each
// keeps, which is the table of docs/performance.md.
#include "support/error_of.hpp"
#include "support/kept_memory.hpp"

#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kKvHeads = 2;
constexpr std::int64_t kHeadSize = 24;
constexpr std::int64_t kFfn = 160;
constexpr std::int64_t kRank = 5;

const std::vector<std::string> kSome = {"q_proj", "v_proj"};
const std::vector<std::string> kAll = {"all-linear"};

struct Case {
  std::string model_type = "llama";
  torch::Dtype dtype = torch::kFloat32;
  std::vector<std::string> targets = kAll;
  double dropout = 0;
  std::int64_t layers = 2;
};

std::shared_ptr<PeftModel> make_model(const Case& c, CheckpointingMode mode) {
  ModelConfig config;
  config.model_type = c.model_type;
  config.vocab_size = 61;
  config.hidden_size = kHidden;
  config.intermediate_size = kFfn;
  config.num_hidden_layers = c.layers;
  config.num_attention_heads = kHeads;
  config.num_key_value_heads = kKvHeads;
  config.head_dim = kHeadSize;
  config.max_position_embeddings = 128;
  config.initializer_range = 0.2;
  config.dtype = c.dtype;
  const auto base = CausalLM::from_config(config, 7);
  for_each_linear(*base, [&](const std::string& path, LinearImpl& linear) {
    if (path == "lm_head") return;
    const QuantizedTensor weight =
        quantize_4bit(linear.dense_weight().detach(), QuantConfig{.blocksize = 32});
    linear.set_quantized(weight, c.dtype);
    REQUIRE(linear.quantized().is_packed());
  });
  LoraConfig lora;
  lora.r = kRank;
  lora.lora_alpha = 8;
  lora.target_modules = c.targets;
  lora.lora_dropout = c.dropout;
  lora.init_lora_weights = LoraInit::random;
  auto model = std::make_shared<PeftModel>(base, lora);
  model->train();
  model->set_gradient_checkpointing(mode);
  model->seed_dropout(3);
  return model;
}

// Examples of several lengths, one of them a single token.
PackedInput ragged_input() {
  std::vector<std::vector<std::int64_t>> sequences;
  std::int64_t id = 1;
  for (const std::int64_t length : {20, 1, 16}) {
    sequences.emplace_back();
    for (std::int64_t i = 0; i < length; ++i) {
      sequences.back().push_back(id = (id * 29 + 7) % 61);
    }
  }
  return PackedInput::pack(sequences);
}

// The loss, then the gradient of every parameter that has one.
std::vector<torch::Tensor> loss_and_gradients(PeftModel& model) {
  const torch::Tensor loss = model.forward(ragged_input()).to(torch::kFloat32).square().mean();
  loss.backward();
  std::vector<torch::Tensor> found = {loss.detach()};
  for (const auto& parameter : model.parameters()) {
    if (parameter.grad().defined()) found.push_back(parameter.grad());
  }
  return found;
}

// Elements a token that one layer within a model keeps: in the model's dtype, and in float32.
struct Kept {
  std::int64_t elements = 0;
  std::int64_t floats = 0;
};

// The table, row by row.
Kept table(const Case& c, CheckpointingMode mode) {
  constexpr std::int64_t q = kHeads * kHeadSize, kv = kKvHeads * kHeadSize;
  if (mode == CheckpointingMode::full) return {kHidden, 0};
  const bool adapts_all = c.targets == kAll;
  Kept kept;
  kept.elements += 2 * kHidden;  // the residual stream before both norms
  kept.floats += 2;              // 1/rms of both
  if (c.model_type == "qwen3") {
    kept.elements += q + kv;  // before the norms of heads
    kept.floats += kHeads + kKvHeads;
  }
  kept.elements += q + 2 * kv;  // what attention reads
  kept.elements += q;           // its result
  kept.floats += kHeads;        // log Σ exp
  kept.elements += 2 * kFfn;    // gate and up
  kept.floats += (adapts_all ? 7 : 2) * kRank;
  if (mode == CheckpointingMode::none) {
    kept.elements += kHidden;                         // the first norm's output
    if (adapts_all) kept.elements += kHidden + kFfn;  // the second one's, and SwiGLU's
  }
  return kept;
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("checkpointing modes: loss and gradients are the same bits in all three") {
  for (const std::string model_type : {"llama", "qwen3"}) {
    for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16}) {
      for (const auto& targets : {kAll, kSome, std::vector<std::string>{"down_proj"}}) {
        for (const double dropout : {0.0, 0.3}) {
          const Case c{model_type, dtype, targets, dropout};
          INFO(model_type, " ", dtype, " ", targets[0], " dropout ", dropout);
          const auto want = loss_and_gradients(*make_model(c, CheckpointingMode::none));
          CHECK(want.size() == 1 + 2 * 2 * (targets == kAll ? 7 : targets.size()));
          for (const auto& entry : kCheckpointingModes) {
            INFO(entry.second);
            const auto got = loss_and_gradients(*make_model(c, entry.first));
            REQUIRE(got.size() == want.size());
            for (std::size_t i = 0; i < want.size(); ++i) {
              CAPTURE(i);
              CHECK(torch::equal(got[i], want[i]));
              CHECK(want[i].abs().max().item<double>() > 0);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("checkpointing modes: norms that are trained get the same gradients in all three") {
  std::vector<torch::Tensor> want;
  for (const auto& entry : kCheckpointingModes) {
    INFO(entry.second);
    const auto model = make_model({.model_type = "qwen3", .dropout = 0.3}, entry.first);
    for (const auto& parameter : model->named_parameters()) {
      if (contains(parameter.key(), "norm")) parameter.value().set_requires_grad(true);
    }
    const auto got = loss_and_gradients(*model);
    CHECK(got.size() == 1 + 2 * (2 * 7 + 4) + 1);
    if (want.empty()) want = got;
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(torch::equal(got[i], want[i]));
  }
}

TEST_CASE("checkpointing modes: a backward pass can be repeated, and has its own forward's masks") {
  const Case c{.dropout = 0.3};
  std::vector<torch::Tensor> want;
  for (const auto& entry : kCheckpointingModes) {
    INFO(entry.second);
    const auto model = make_model(c, entry.first);
    const torch::Tensor loss = model->forward(ragged_input()).square().mean();
    model->seed_dropout(4);
    loss.backward({}, /*retain_graph=*/true);
    loss.backward();
    std::vector<torch::Tensor> got;
    for (const auto& parameter : model->parameters()) {
      if (parameter.grad().defined()) got.push_back(parameter.grad());
    }
    const auto once = loss_and_gradients(*make_model(c, entry.first));
    REQUIRE(once.size() == got.size() + 1);
    for (std::size_t i = 0; i < got.size(); ++i) CHECK(torch::equal(got[i], once[i + 1] * 2));
  }
}

TEST_CASE("checkpointing modes: a layer keeps what the table says, and dropout adds nothing") {
  const PackedInput input = ragged_input();
  for (const std::string model_type : {"llama", "qwen3"}) {
    for (const torch::Dtype dtype : {torch::kFloat32, torch::kBFloat16}) {
      for (const auto& targets : {kAll, kSome}) {
        for (const double dropout : {0.0, 0.3}) {
          for (const auto& entry : kCheckpointingModes) {
            INFO(model_type, " ", dtype, " ", targets[0], " dropout ", dropout, " ", entry.second);
            Case c{model_type, dtype, targets, dropout};
            // What a third layer adds: the first one's input needs no gradient.
            std::int64_t bytes = 0;
            for (c.layers = 3; c.layers >= 2; --c.layers) {
              const auto model = make_model(c, entry.first);
              const std::int64_t kept = kept_bytes([&] { return model->hidden_states(input); });
              bytes += c.layers == 3 ? kept : -kept;
            }
            const Kept kept = table(c, entry.first);
            const auto size = static_cast<std::int64_t>(c10::elementSize(dtype));
            CHECK(bytes == input.num_tokens() * (kept.elements * size + kept.floats * 4));
          }
        }
      }
    }
  }
}

TEST_CASE("checkpointing modes: where no graph keeps gate and up, selective keeps their product") {
  // Below down_proj of the only layer nothing needs a gradient.
  const Case c{.targets = {"down_proj"}, .layers = 1};
  const PackedInput input = ragged_input();
  const auto kept = [&](CheckpointingMode mode) {
    const auto model = make_model(c, mode);
    return kept_bytes([&] { return model->hidden_states(input); });
  };
  CHECK(kept(CheckpointingMode::selective) == kept(CheckpointingMode::none));
}

TEST_CASE(
    "checkpointing modes: names are read back, and an unknown one is an Error that lists them") {
  for (const auto& entry : kCheckpointingModes) {
    CHECK((parse_checkpointing_mode(checkpointing_mode_name(entry.first)) == entry.first));
  }
  CHECK(contains(error_of([] { parse_checkpointing_mode("some"); }),
                 "\"some\"; expected \"none\", \"selective\" or \"full\""));
}

TEST_SUITE_END();
