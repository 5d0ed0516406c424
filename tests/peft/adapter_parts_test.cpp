// What an adapter may hold beside LoRA on Linears: whole modules, embeddings, rows of tokens,
// biases of B; and several adapters on one base.
#include "peft/tiny_lora.hpp"
#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/count.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/trainer.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

const std::string kPrefix = "base_model.model.";

ModelConfig with_bias() {
  ModelConfig config = tiny_config();
  config.model_type = "llama";
  config.architectures = {"LlamaForCausalLM"};
  config.attention_bias = true;
  return config;
}

ModelConfig tied() {
  ModelConfig config = tiny_config();
  config.tie_word_embeddings = true;
  return config;
}

LoraConfig lora(std::vector<std::string> targets = {"q_proj", "v_proj"}) {
  LoraConfig config;
  config.r = 3;
  config.lora_alpha = 6;
  config.target_modules = std::move(targets);
  config.init_lora_weights = LoraInit::random;
  return config;
}

// Every kind of part that needs its own code, and the model it is for.
struct Kind {
  std::string name;
  ModelConfig base;
  LoraConfig lora;
};

std::vector<Kind> kinds() {
  std::vector<Kind> all;
  const auto add = [&](const char* name, const ModelConfig& base) -> LoraConfig& {
    all.push_back({name, base, lora()});
    return all.back().lora;
  };
  add("a head, an embedding and norms", tiny_config()).modules_to_save = {"lm_head", "embed_tokens",
                                                                          "norm"};
  add("a whole mlp", tiny_config()).modules_to_save = {"layers.1.mlp"};
  add("a tied head", tied()).modules_to_save = {"lm_head"};
  add("an embedding with a tied head", tied()).modules_to_save = {"embed_tokens"};
  add("an embedding's LoRA", tiny_config()).target_modules = {"q_proj", "embed_tokens", "lm_head"};
  add("a tied embedding's LoRA", tied()).target_modules = {"v_proj", "model.embed_tokens"};
  add("a bias of B", with_bias()).lora_bias = true;
  add("tokens", tiny_config()).trainable_token_indices = {{"", {9, 60, 0}}};
  add("tied tokens", tied()).trainable_token_indices = {{"", {9, 60, 0}}};
  add("tokens of both ends", tiny_config()).trainable_token_indices = {{"embed_tokens", {5, 9}},
                                                                       {"lm_head", {33}}};
  return all;
}

// Moves every trained value, so that a part that is forgotten shows.
void disturb(const PeftModel& model) {
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.adapter_state())
    torch::Tensor(tensor).mul_(1.5).add_(0.1);
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("adapter parts: each kind is trained, saved, loaded, switched off and taken out again") {
  for (const Kind& kind : kinds()) {
    CAPTURE(kind.name);
    const TemporaryFolder folder;
    const auto base = tiny_model(7, kind.base);
    const torch::Tensor plain = logits(*base);
    PeftModel model(base, kind.lora);
    model.eval();
    disturb(model);
    const torch::Tensor tuned = logits(model);
    CHECK_FALSE(torch::allclose(tuned, plain, 1e-2, 1e-2));

    // What is trained is what the files hold, with a gradient for each part.
    std::int64_t trained = 0;
    token_loss_backward(model, model.hidden_states(PackedInput::single({9, 60, 0, 5, 33})),
                        torch::tensor({60, 0, 5, 33, 9}), 1.0);
    for (const auto& entry : model.adapter_state()) {
      const torch::Tensor& tensor = entry.second;
      CAPTURE(entry.first);
      trained += tensor.numel();
      CHECK(tensor.requires_grad());
      CHECK((tensor.grad().defined() && tensor.grad().abs().sum().item<double>() > 0));
      torch::Tensor(tensor).mutable_grad() = torch::Tensor();
    }
    CHECK(model.trainable_parameters().trainable == trained);
    CHECK(count_lora_parameters(kind.base, kind.lora) == trained);

    model.save_pretrained(folder / "saved");
    {
      const PeftModel::AdapterDisabled off(model);
      CHECK(logits(model).equal(plain));
    }
    CHECK(logits(model).equal(tuned));
    for (const auto& [name, tensor] : model.adapter_state()) CHECK(tensor.requires_grad());
    model.unload();
    CHECK(logits(*base).equal(plain));
    for (const auto& parameter : base->named_parameters()) {
      CHECK_FALSE(contains(parameter.key(), "lora"));
    }

    PeftModel loaded = PeftModel::from_pretrained(base, folder / "saved");
    CHECK(logits(loaded).equal(tuned));
    CHECK(loaded.trainable_parameters().trainable == 0);
    loaded.save_pretrained(folder / "again");
    for (const char* name : {"adapter_model.safetensors", "adapter_config.json"}) {
      CHECK(read_file(folder / "saved" / name) == read_file(folder / "again" / name));
    }
  }
}

TEST_CASE("adapter parts: merged, each kind gives the adapted logits; unmerge restores the bits") {
  for (const Kind& kind : kinds()) {
    if (kind.name == "a tied embedding's LoRA") continue;
    CAPTURE(kind.name);
    const auto base = tiny_model(7, kind.base);
    const torch::Tensor plain = logits(*base);
    PeftModel model(base, kind.lora);
    model.eval();
    disturb(model);
    const torch::Tensor tuned = logits(model);
    model.merge();
    CHECK(torch::allclose(logits(model), tuned, 1e-3, 1e-3));
    model.unmerge();
    CHECK(logits(model).equal(tuned));
    if (kind.base.tie_word_embeddings && !kind.lora.modules_to_save.empty()) {
      CHECK(contains(error_of([&] { model.merge_and_unload(); }), "tie_word_embeddings"));
      continue;
    }
    const auto merged = model.merge_and_unload();
    CHECK(torch::allclose(logits(*merged), tuned, 1e-3, 1e-3));
    CHECK_FALSE(logits(*merged).equal(plain));
  }
  PeftModel shared(tiny_model(7, tied()), lora({"embed_tokens"}));
  CHECK(contains(error_of([&] { shared.merge(); }), "model.embed_tokens shares its weight"));
  LoraConfig biased = lora();
  biased.lora_bias = true;
  PeftModel without(tiny_model(), biased);
  CHECK(contains(error_of([&] { without.merge(); }), "q_proj has no bias"));
}

TEST_CASE("adapter parts: names and shapes in the file are PEFT's") {
  const TemporaryFolder folder;
  const auto shapes = [&](const ModelConfig& base, const LoraConfig& config) {
    PeftModel(tiny_model(7, base), config).save_pretrained(folder / "adapter");
    const SafetensorsFile file =
        SafetensorsFile::open(folder / "adapter/adapter_model.safetensors");
    std::map<std::string, std::vector<std::int64_t>> found;
    for (const std::string& name : file.names()) {
      if (!contains(name, "self_attn")) found[name.substr(kPrefix.size())] = file.info(name).shape;
    }
    return found;
  };
  using Shapes = std::map<std::string, std::vector<std::int64_t>>;
  LoraConfig config = lora({"q_proj"});
  config.modules_to_save = {"lm_head", "model.norm"};
  CHECK(shapes(tiny_config(), config) ==
        Shapes{{"lm_head.weight", {61, 40}}, {"model.norm.weight", {40}}});
  // The weight of a targeted embedding goes along.
  CHECK(shapes(tiny_config(), lora({"q_proj", "embed_tokens"})) ==
        Shapes{{"model.embed_tokens.lora_embedding_A", {3, 61}},
               {"model.embed_tokens.lora_embedding_B", {40, 3}},
               {"model.embed_tokens.base_layer.weight", {61, 40}}});
  config = lora({"up_proj"});
  config.layers_to_transform = {1};
  config.lora_bias = true;
  CHECK(shapes(tiny_config(), config) ==
        Shapes{{"model.layers.1.mlp.up_proj.lora_A.weight", {3, 40}},
               {"model.layers.1.mlp.up_proj.lora_B.weight", {72, 3}},
               {"model.layers.1.mlp.up_proj.lora_B.bias", {72}}});
  config = lora({"q_proj"});
  config.trainable_token_indices = {{"", {9, 0}}};
  CHECK(shapes(tied(), config) ==
        Shapes{{"model.embed_tokens.token_adapter.trainable_tokens_delta", {2, 40}}});
}

TEST_CASE("adapter parts: whole modules keep the base's type, a norm's name its kind") {
  ModelConfig config = tiny_config();
  config.dtype = torch::kBFloat16;
  LoraConfig whole = lora();
  whole.modules_to_save = {"norm"};
  const PeftModel model(tiny_model(7, config), whole);
  std::size_t norms = 0;
  for (const auto& [name, tensor] : model.adapter_state()) {
    const bool is_norm = contains(name, "norm");
    CHECK((tensor.scalar_type() == (is_norm ? torch::kBFloat16 : torch::kFloat32)));
    if (is_norm) ++norms;
  }
  CHECK(norms == 5);  // two a layer and the last: as in PEFT, "norm" ends their names
}

TEST_CASE("adapter parts: an embedding that the file changes comes with it and goes with it") {
  const TemporaryFolder folder;
  const auto base = tiny_model();
  const torch::Tensor plain = logits(*base);
  PeftModel(tiny_model(8), lora({"q_proj", "lm_head"})).save_pretrained(folder.path());
  PeftModel model = PeftModel::from_pretrained(base, folder.path());
  const SafetensorsFile file = SafetensorsFile::open(folder / "adapter_model.safetensors");
  CHECK(base->named_parameters()["lm_head.weight"].equal(
      file.view("base_model.model.lm_head.base_layer.weight")));
  CHECK(model.trainable_parameters().trainable == 0);
  model.save_pretrained(folder / "again");
  CHECK(read_file(folder / "adapter_model.safetensors") ==
        read_file(folder / "again/adapter_model.safetensors"));
  model.unload();
  CHECK(logits(*base).equal(plain));
}

TEST_CASE(
    "adapter parts: what does not fit is an error that names it, and the base stays as it was") {
  const auto base = tiny_model();
  const auto refused = [&](const LoraConfig& config) {
    const std::string message = error_of([&] { PeftModel(base, config); });
    for (const auto& parameter : base->parameters()) CHECK(parameter.requires_grad());
    return message;
  };
  LoraConfig config = lora();
  config.modules_to_save = {"lm_haed"};
  CHECK(contains(refused(config),
                 "no module of the model is named \"lm_haed\"; did you mean lm_head"));
  config.modules_to_save = {"proj"};  // in PEFT it means q_proj too, which has a LoRA
  CHECK(contains(refused(config), "q_proj is among the target_modules too"));
  config = lora();
  config.trainable_token_indices = {{"", {61}}};
  CHECK(contains(refused(config), "token id 61 is outside the vocabulary of 61"));
  config.trainable_token_indices = {{"wte", {1}}};
  CHECK(contains(refused(config), "no embedding of the model is named \"wte\""));
  config.trainable_token_indices = {{"", {4, 4}}};
  CHECK(contains(refused(config), "has 4 twice"));
  config.trainable_token_indices = {{"", {4}}};
  config.modules_to_save = {"embed_tokens"};
  CHECK(contains(refused(config), "model.embed_tokens is in modules_to_save too"));
  config = lora({"embed_tokens"});
  config.lora_bias = true;
  CHECK(contains(refused(config), "there is no lora_bias"));
  const auto quantized = tiny_model();
  for_each_linear(*quantized, [](const std::string& path, LinearImpl& linear) {
    if (path != "lm_head") linear.set_quantized(quantize_4bit(linear.dense_weight()));
  });
  config = lora();
  config.modules_to_save = {"mlp"};
  CHECK(contains(error_of([&] { PeftModel(quantized, config); }), "gate_proj has a 4-bit weight"));
  config.modules_to_save = {"lm_head"};
  CHECK_NOTHROW(PeftModel(quantized, config));
}

TEST_CASE("several adapters: each by name gives its own logits, and the folders are PEFT's") {
  const TemporaryFolder folder;
  const auto base = tiny_model();
  const torch::Tensor plain = logits(*base);
  LoraConfig other = lora({"k_proj", "embed_tokens"});
  other.modules_to_save = {"lm_head"};
  LoraConfig third = lora();
  third.modules_to_save = {"lm_head", "model.norm"};
  PeftModel model(base, lora());
  model.eval();
  disturb(model);
  const torch::Tensor first_logits = logits(model);
  model.add_adapter("other", other, 5);
  model.add_adapter("third", third, 6);
  CHECK(model.active_adapter() == "default");
  CHECK(logits(model).equal(first_logits));
  std::map<std::string, torch::Tensor> want = {{"default", first_logits}};
  for (const char* name : {"other", "third"}) {
    model.set_adapter(name);
    disturb(model);
    want[name] = logits(model);
    std::int64_t trained = 0;
    for (const auto& [key, tensor] : model.adapter_state()) trained += tensor.numel();
    CHECK(model.trainable_parameters().trainable == trained);
  }
  CHECK_FALSE(want["third"].equal(want["other"]));
  model.save_pretrained(folder.path());
  for (const auto& [name, tensor] : want) {
    model.set_adapter(name);
    CHECK(logits(model).equal(tensor));
    const PeftModel::AdapterDisabled off(model);
    CHECK(logits(model).equal(plain));
  }
  CHECK(
      contains(error_of([&] { model.set_adapter("fourth"); }), "there are default, other, third"));
  CHECK(contains(error_of([&] { model.add_adapter("other", lora()); }), "\"other\" already"));
  CHECK(contains(error_of([&] { model.add_adapter("a.b", lora()); }), "is no name"));
  CHECK(contains(error_of([&] { model.delete_adapter("third"); }), "is the active adapter"));
  model.delete_adapter("other");
  CHECK(model.adapter_names() == std::vector<std::string>{"default", "third"});
  model.unload();
  CHECK(logits(*base).equal(plain));

  PeftModel loaded = PeftModel::from_pretrained(base, folder.path());
  CHECK(contains(error_of([&] { loaded.load_adapter(folder / "none", "third"); }), "none"));
  CHECK(logits(loaded).equal(want["default"]));
  loaded.load_adapter(folder / "third", "third");
  loaded.load_adapter(folder / "other", "renamed");
  for (const auto& [name, tensor] : want) {
    loaded.set_adapter(name == "other" ? "renamed" : name);
    CHECK(logits(loaded).equal(tensor));
  }
  loaded.unload();
  std::filesystem::remove(folder / "adapter_config.json");
  CHECK(contains(error_of([&] { PeftModel::from_pretrained(base, folder.path()); }),
                 "in its sub-folders other, third"));
}

TEST_CASE("adapter parts: a run that trains them resumes to the same bits") {
  LoraConfig config = lora();
  config.modules_to_save = {"lm_head", "model.norm"};
  config.trainable_token_indices = {{"", {9, 60, 0}}};
  const TemporaryFolder folder;
  const auto args = [&](const char* name) {
    TrainingArguments result;
    result.output_dir = (folder / name).string();
    result.per_device_train_batch_size = 3;
    result.learning_rate = 5e-3;
    result.max_steps = 6;
    result.save_steps = 3;
    return result;
  };
  PeftModel whole(tiny_model(), config);
  Trainer(whole, args("whole"), tiny_dataset(12)).train();
  PeftModel model(tiny_model(), config, 99);
  std::filesystem::create_directories(folder / "cut");
  std::filesystem::copy(folder / "whole/checkpoint-3", folder / "cut/checkpoint-3",
                        std::filesystem::copy_options::recursive);
  Trainer(model, args("cut"), tiny_dataset(12)).train("last");
  const auto want = whole.adapter_state();
  const auto got = model.adapter_state();
  const PeftModel untrained(tiny_model(), config);
  const auto start = untrained.adapter_state();
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(got[i].first);
    CHECK(got[i].second.equal(want[i].second));
    CHECK_FALSE(got[i].second.equal(start[i].second));
  }
}

TEST_SUITE_END();
