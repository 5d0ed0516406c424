// Adapters on a model whose head is in 8 bits: what works, and what needs the dense weight.
#include "peft/tiny_lora.hpp"
#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/decoder.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/trainer.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <memory>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

std::shared_ptr<CausalLM> model_with_head_8bit(bool tied) {
  ModelConfig config = tiny_config();
  config.tie_word_embeddings = tied;
  const auto model = tiny_model(7, config);
  dynamic_cast<DecoderLM&>(*model).quantize_head();
  return model;
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("head in 8 bits: an adapter of the layers trains through it, is saved and loaded") {
  const TemporaryFolder folder;
  PeftModel model(model_with_head_8bit(false), random_lora({"all-linear"}));
  model.eval();
  const torch::Tensor before = logits(model);
  TrainingArguments arguments;
  arguments.output_dir = (folder / "run").string();
  arguments.max_steps = 3;
  arguments.learning_rate = 1e-2;
  arguments.save_strategy = "no";
  Trainer(model, arguments, tiny_dataset(12)).train();
  model.eval();
  const torch::Tensor after = logits(model);
  CHECK_FALSE(after.equal(before));
  model.save_pretrained(folder / "adapter");
  CHECK_FALSE(SafetensorsFile::open(folder / "adapter/adapter_model.safetensors")
                  .contains("base_model.model.lm_head.weight"));
  PeftModel loaded = PeftModel::from_pretrained(model_with_head_8bit(false), folder / "adapter");
  CHECK(logits(loaded).equal(after));
  loaded.merge();  // into the layers
  CHECK(torch::allclose(logits(loaded), after, 1e-3, 1e-3));
}

TEST_CASE("head in 8 bits: what needs the head's dense weight is one error that says which") {
  const auto refused = [](const LoraConfig& config, bool tied) {
    const auto base = model_with_head_8bit(tied);
    const std::string message = error_of([&] { PeftModel(base, config); });
    for (const auto& parameter : base->parameters()) {
      if (!message.empty()) CHECK(parameter.requires_grad());
    }
    return message;
  };
  CHECK(
      contains(refused(random_lora({"q_proj", "lm_head"}), false), "target_modules names lm_head"));
  LoraConfig config = random_lora();
  config.modules_to_save = {"lm_head"};
  CHECK(contains(refused(config, false), "modules_to_save names lm_head"));
  CHECK(contains(refused(config, true), "needs the dense weight of lm_head"));
  config = random_lora();
  config.trainable_token_indices = {{"lm_head", {4}}};
  CHECK(contains(refused(config, false), "trainable_token_indices names lm_head"));
  config.trainable_token_indices = {{"embed_tokens", {4}}};
  CHECK(refused(config, false).empty());
  CHECK(contains(refused(config, true),
                 "trainable_token_indices names model.embed_tokens, which needs the dense weight"));
  config = random_lora();
  config.modules_to_save = {"embed_tokens"};  // PEFT parts a tied pair too
  CHECK(refused(config, true).empty());
}

TEST_CASE("head in 8 bits: an adapter that brings a dense head is an error") {
  const TemporaryFolder folder;
  LoraConfig config = random_lora();
  PeftModel(tiny_model(), config).save_pretrained(folder.path());
  const auto path = folder / "adapter_model.safetensors";
  NamedTensors tensors;
  {
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const std::string& name : file.names()) {
      tensors.emplace_back(name, file.view(name).clone());
    }
  }
  tensors.emplace_back("base_model.model.lm_head.weight", torch::ones({61, 40}));
  write_safetensors(path, tensors);
  CHECK_NOTHROW(PeftModel::from_pretrained(tiny_model(), folder.path()));
  const std::string message =
      error_of([&] { PeftModel::from_pretrained(model_with_head_8bit(false), folder.path()); });
  CHECK(contains(message, "lm_head.weight is a dense weight, which a head in 8 bits cannot take"));
}

TEST_CASE("an 8-bit layer inside the decoder takes LoRA, and refuses to be merged or trained") {
  const auto base = tiny_model();
  for_each_linear(*base, [](const std::string& path, LinearImpl& linear) {
    if (path.ends_with("q_proj")) linear.set_int8(quantize_int8(linear.dense_weight()));
  });
  const torch::Tensor plain = logits(*base);
  PeftModel model(base, random_lora());
  CHECK_FALSE(logits(model).equal(plain));
  CHECK(contains(error_of([&] { model.merge(); }), "q_proj has an 8-bit weight"));
  model.unload();
  LoraConfig config = random_lora({"v_proj"});
  config.modules_to_save = {"q_proj"};
  CHECK(contains(error_of([&] { PeftModel(base, config); }), "modules_to_save names"));
}

TEST_SUITE_END();
