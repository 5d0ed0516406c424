// Adapters as peft saves them: logits, loss and the gradient of every factor against peft.
#include "toy_model.hpp"

#include "support/golden.hpp"

#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <map>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

TEST_SUITE("golden lora") {
  TEST_CASE(
      "logits, loss and every gradient with peft's adapter are peft's, over a dense and an NF4 "
      "base") {
    for (const std::string name : kToyModels) {
      const GoldenTensors golden(name + ".safetensors");
      const ToyBatch batch = toy_batch(golden);
      for (const bool quantized : {false, true}) {
        for (const auto& mode : kCheckpointingModes) {
          const std::string prefix = quantized ? "nf4_lora." : "lora.";
          CAPTURE(name);
          CAPTURE(prefix);
          CAPTURE(mode.second);
          PeftModel model = PeftModel::from_pretrained(
              load_toy(name, quantized), golden_path(name) / "adapter", /*is_trainable=*/true);
          model.set_gradient_checkpointing(mode.first);
          const torch::Tensor hidden = model.hidden_states(batch.input);
          const torch::Tensor logits = model.lm_head(hidden);
          const torch::Tensor loss = mean_loss(logits, batch.next);
          CHECK_GOLDEN(hidden, golden[prefix + "hidden"]);
          CHECK_GOLDEN(logits, golden[prefix + "logits"]);
          CHECK_GOLDEN(loss, golden[prefix + "loss"]);
          loss.backward();
          std::map<std::string, torch::Tensor> gradients;
          for (const auto& layer : model.adapted_layers()) {
            const std::string path = "base_model.model." + layer.path;
            for (const auto& parameter : layer.adapter->named_parameters()) {
              gradients[path + ".lora_" + parameter.key() + ".weight"] = parameter.value().grad();
            }
          }
          const auto names = golden.names_under(prefix + "grad.");
          CHECK(gradients.size() == names.size());
          for (const std::string& parameter : names) {
            CAPTURE(parameter);
            CHECK_GOLDEN(gradients[parameter], golden[prefix + "grad." + parameter]);
          }
        }
      }
    }
  }

  TEST_CASE("with its adapter disabled the model is the base again, bit for bit") {
    const GoldenTensors golden("mistral.safetensors");
    const ToyBatch batch = toy_batch(golden);
    const torch::Tensor base = load_toy("mistral", false)->forward(batch.input);
    PeftModel model =
        PeftModel::from_pretrained(load_toy("mistral", false), golden_path("mistral/adapter"));
    {
      const PeftModel::AdapterDisabled disabled(model);
      CHECK(torch::equal(model.forward(batch.input), base));
    }
    CHECK_GOLDEN(model.forward(batch.input), golden["lora.logits"]);
    model.merge();
    CHECK_GOLDEN(model.forward(batch.input), golden["lora.logits"]);
  }
}
