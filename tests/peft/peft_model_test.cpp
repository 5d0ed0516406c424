#include "support/error_of.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <sstream>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

const std::vector<std::int64_t> kIds = {3, 17, 60, 0, 5, 9, 9, 2, 33};

torch::Tensor logits(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single(kIds));
}

LoraConfig nonzero(std::vector<std::string> targets = {"q_proj", "v_proj"}) {
  LoraConfig config;
  config.r = 3;
  config.lora_alpha = 6;
  config.target_modules = std::move(targets);
  config.init_lora_weights = LoraInit::random;
  return config;
}

std::shared_ptr<CausalLM> quantized_model() {
  auto model = tiny_model();
  for_each_linear(*model, [](const std::string& path, LinearImpl& linear) {
    if (path != "lm_head") linear.set_quantized(quantize_4bit(linear.dense_weight()));
  });
  return model;
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("peft_model: a new adapter changes no logit, and only A and B are trainable") {
  const auto base = tiny_model();
  const torch::Tensor before = logits(*base);
  PeftModel model(base, LoraConfig{.r = 4});
  model.eval();
  CHECK(logits(model).equal(before));
  CHECK(model.adapted_layers().size() == 4);
  CHECK(model.adapted_layers()[1].path == "model.layers.0.self_attn.v_proj");
  for (const auto& parameter : model.named_parameters()) {
    const bool is_lora = contains(parameter.key(), ".lora.");
    CHECK(parameter.value().requires_grad() == is_lora);
  }
}

TEST_CASE("peft_model: counts are PEFT's, a 4-bit weight by its elements, in PEFT's line") {
  for (const bool quantized : {false, true}) {
    const auto base = quantized ? quantized_model() : tiny_model();
    const std::int64_t plain = count_parameters(tiny_config());
    const PeftModel model(base, LoraConfig{.r = 16});
    // q: 40→40, v: 40→20, in two layers.
    const std::int64_t lora = 2 * 16 * ((40 + 40) + (40 + 20));
    CHECK(model.trainable_parameters().trainable == lora);
    CHECK(model.trainable_parameters().all == plain + lora);
    std::ostringstream out;
    model.print_trainable_parameters(out);
    CHECK(out.str() == "trainable params: 4,480 || all params: 36,440 || trainable%: 12.2942\n");
  }
}

TEST_CASE("peft_model: targets that match nothing are listed with the nearest names") {
  const std::string message = error_of([] {
    PeftModel(tiny_model(), LoraConfig{.target_modules = {"q_prj", "v_proj", "c_attn"}});
  });
  CHECK(contains(message, "\"q_prj\"; did you mean q_proj"));
  CHECK(contains(message, "\"c_attn\"; its Linear layers are named"));
  CHECK(contains(message, "gate_proj"));
  LoraConfig regex;
  regex.target_modules = {};
  regex.target_modules_regex = "q_proj";
  CHECK(contains(error_of([&] { PeftModel(tiny_model(), regex); }), "matches no Linear layer"));
  LoraConfig excluded;
  excluded.exclude_modules = {"q_proj", "v_proj"};
  CHECK(contains(error_of([&] { PeftModel(tiny_model(), excluded); }), "leave no Linear layer"));
  CHECK_THROWS_AS(PeftModel(nullptr), Error);
}

TEST_CASE(
    "peft_model: a failed construction leaves the base as it was; a second adapter is refused") {
  const auto base = tiny_model();
  CHECK_THROWS_AS(PeftModel(base, LoraConfig{.target_modules = {"nope"}}), Error);
  for (const auto& parameter : base->parameters()) CHECK(parameter.requires_grad());
  const PeftModel first(base);
  CHECK(contains(error_of([&] { PeftModel second(base); }), "has an adapter already"));
}

TEST_CASE("peft_model: all-linear adapts every layer but the head, and saves their names") {
  const PeftModel model(tiny_model(), LoraConfig{.target_modules = {"all-linear"}});
  CHECK(model.adapted_layers().size() == 14);
  CHECK(model.peft_config().target_modules == std::vector<std::string>{"down_proj", "gate_proj",
                                                                       "k_proj", "o_proj", "q_proj",
                                                                       "up_proj", "v_proj"});
}

TEST_CASE("peft_model: disabled, the model is its base; the guard restores what was") {
  const auto base = tiny_model();
  const torch::Tensor plain = logits(*base);
  PeftModel model(base, nonzero());
  model.eval();
  const torch::Tensor tuned = logits(model);
  CHECK_FALSE(tuned.equal(plain));
  {
    const PeftModel::AdapterDisabled guard(model);
    CHECK(logits(model).equal(plain));
    CHECK_FALSE(model.adapter_enabled());
  }
  CHECK(logits(model).equal(tuned));
  model.disable_adapter();
  { const PeftModel::AdapterDisabled guard(model); }
  CHECK_FALSE(model.adapter_enabled());
  model.enable_adapter();
  {
    const PeftModel::AdapterDisabled guard(model);
    model.merge();
  }
  CHECK(model.is_merged());
  model.unmerge();
  CHECK(logits(model).equal(tuned));
}

TEST_CASE("peft_model: merged weights give the adapted logits, unmerge restores the bits") {
  const auto base = tiny_model();
  std::vector<torch::Tensor> weights;
  for (const auto& parameter : base->parameters()) weights.push_back(parameter.detach().clone());
  const torch::Tensor plain = logits(*base);
  PeftModel model(base, nonzero({"all-linear"}));
  model.eval();
  const torch::Tensor tuned = logits(model);
  model.merge();
  CHECK(torch::allclose(logits(model), tuned, 1e-4, 1e-4));
  CHECK_THROWS_AS(model.merge(), Error);
  CHECK_THROWS_AS(model.enable_adapter(), Error);
  // The weights hold the update: switched off, the model would not be its base.
  CHECK(contains(error_of([&] { model.disable_adapter(); }), "unmerge() before disabling"));
  CHECK_THROWS_AS(const PeftModel::AdapterDisabled off(model), Error);
  model.unmerge();
  CHECK(logits(model).equal(tuned));
  CHECK_THROWS_AS(model.unmerge(), Error);
  model.unload();
  CHECK(logits(*base).equal(plain));
  std::size_t i = 0;
  for (const auto& parameter : base->parameters()) CHECK(parameter.equal(weights[i++]));
}

TEST_CASE("peft_model: merge_and_unload gives a plain model with the adapted logits") {
  PeftModel model(tiny_model(), nonzero());
  model.eval();
  const torch::Tensor tuned = logits(model);
  const auto plain = model.merge_and_unload();
  CHECK(torch::allclose(logits(*plain), tuned, 1e-4, 1e-4));
  CHECK(model.adapted_layers().empty());
  for (const auto& parameter : plain->named_parameters())
    CHECK_FALSE(contains(parameter.key(), "lora"));
}

TEST_CASE("peft_model: a 4-bit base refuses to merge and says what to do") {
  PeftModel model(quantized_model(), nonzero());
  const std::string message = error_of([&] { model.merge(); });
  CHECK(contains(message, "model.layers.0.self_attn.q_proj has a 4-bit weight"));
  CHECK(contains(message, "without quantization"));
  CHECK(model.adapter_enabled());
}

TEST_CASE("peft_model: a head that is tied to the embedding refuses to merge") {
  ModelConfig config = tiny_config();
  config.tie_word_embeddings = true;
  PeftModel model(tiny_model(7, config), nonzero({"q_proj", "lm_head"}));
  const auto before = model.base()->parameters()[0].detach().clone();
  CHECK(contains(error_of([&] { model.merge(); }), "lm_head shares its weight with the embedding"));
  CHECK(model.base()->parameters()[0].equal(before));
  CHECK(model.adapter_enabled());
}

TEST_CASE("peft_model: biases train as PEFT's bias says") {
  ModelConfig config = tiny_config();
  config.model_type = "llama";
  config.architectures = {"LlamaForCausalLM"};
  config.attention_bias = true;
  const auto trained = [&config](const char* bias) {
    LoraConfig lora = nonzero({"q_proj"});
    lora.bias = bias;
    const PeftModel model(tiny_model(7, config), lora);
    std::vector<std::string> names;
    for (const auto& [name, tensor] : model.adapter_state()) {
      if (name.ends_with("bias"))
        names.push_back(name.substr(std::string("base_model.model.").size()));
    }
    CHECK(model.trainable_parameters().trainable == 2 * 3 * (40 + 40) + (names.size() == 2 ? 80
                                                                         : names.empty()   ? 0
                                                                                           : 240));
    return names;
  };
  CHECK(trained("none").empty());
  CHECK(trained("lora_only") ==
        std::vector<std::string>{"model.layers.0.self_attn.q_proj.base_layer.bias",
                                 "model.layers.1.self_attn.q_proj.base_layer.bias"});
  const auto all = trained("all");
  CHECK(all.size() == 8);
  CHECK(all[0] == "model.layers.0.self_attn.q_proj.base_layer.bias");
  CHECK(all[1] == "model.layers.0.self_attn.k_proj.bias");
}

TEST_CASE("peft_model: patterns give layers their own rank and scale") {
  LoraConfig config = nonzero();
  config.rank_pattern = {{"layers.1.self_attn.q_proj", 2}};
  config.alpha_pattern = {{"v_proj", 3}};
  const PeftModel model(tiny_model(), config);
  CHECK(model.adapted_layers()[0].adapter->r() == 3);
  CHECK(model.adapted_layers()[2].adapter->r() == 2);
  CHECK(model.adapted_layers()[2].adapter->scale() == 3);
  CHECK(model.adapted_layers()[1].adapter->scale() == 1);
}

TEST_SUITE_END();
