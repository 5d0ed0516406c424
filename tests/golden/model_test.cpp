// Hidden states, logits, loss and gradients of the toy models against transformers.
#include "toy_model.hpp"

#include "support/golden.hpp"

#include <doctest/doctest.h>
#include <torch/types.h>

#include <string>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("golden models") {
  TEST_CASE(
      "a packed batch gives the hidden states, logits and loss of transformers' padded one, dense "
      "and in NF4") {
    for (const std::string name : kToyModels) {
      const GoldenTensors golden(name + ".safetensors");
      const ToyBatch batch = toy_batch(golden);
      for (const bool quantized : {false, true}) {
        const std::string prefix = quantized ? "nf4." : "base.";
        CAPTURE(name);
        CAPTURE(prefix);
        const auto model = load_toy(name, quantized);
        const torch::Tensor hidden = model->hidden_states(batch.input);
        const torch::Tensor logits = model->lm_head(hidden);
        CHECK_GOLDEN(hidden, golden[prefix + "hidden"]);
        CHECK_GOLDEN(logits, golden[prefix + "logits"]);
        CHECK_GOLDEN(mean_loss(logits, batch.next), golden[prefix + "loss"]);
      }
    }
  }

  TEST_CASE("a cache, filled token by token, gives the same logits") {
    for (const std::string name : kToyModels) {
      CAPTURE(name);
      const GoldenTensors golden(name + ".safetensors");
      const ToyBatch batch = toy_batch(golden);
      const auto model = load_toy(name, false);
      model->eval();
      const torch::NoGradGuard no_grad;
      const std::int64_t length = batch.input.cu_seqlens[1];
      KvCache cache;
      std::vector<torch::Tensor> logits;
      for (std::int64_t i = 0; i < length; ++i) {
        const auto id = batch.input.ids[i].item<std::int64_t>();
        logits.push_back(model->forward(PackedInput::single({id}, i), &cache));
      }
      CHECK_GOLDEN(torch::cat(logits), golden["base.logits"].slice(0, 0, length));
    }
  }

  TEST_CASE("gradients of every parameter are transformers', with and without recomputation") {
    const GoldenTensors golden("llama.safetensors");
    const ToyBatch batch = toy_batch(golden);
    const auto names = golden.names_under("base.grad.");
    REQUIRE(names.size() == 35);
    for (const auto& mode : kCheckpointingModes) {
      CAPTURE(mode.second);
      const auto model = load_toy("llama", false);
      model->set_gradient_checkpointing(mode.first);
      mean_loss(model->forward(batch.input), batch.next).backward();
      const auto parameters = model->named_parameters();
      CHECK(parameters.size() == names.size());
      for (const std::string& name : names) {
        CAPTURE(name);
        const torch::Tensor* parameter = parameters.find(name);
        REQUIRE(parameter != nullptr);
        CHECK_GOLDEN(parameter->grad(), golden["base.grad." + name]);
      }
    }
  }
}
