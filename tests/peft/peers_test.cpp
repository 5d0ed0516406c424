#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/convert.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdlib>
#include <map>
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

// A configuration, and the base that it is for.
struct Case {
  ModelConfig base;
  LoraConfig lora;
};

std::map<std::string, Case> cases() {
  ModelConfig plain = tiny_config();
  ModelConfig tied = tiny_config();
  tied.tie_word_embeddings = true;
  ModelConfig biased = tiny_config();
  biased.model_type = "llama";
  biased.architectures = {"LlamaForCausalLM"};
  biased.attention_bias = true;
  LoraConfig lora;
  lora.r = 4;
  lora.init_lora_weights = LoraInit::random;
  std::map<std::string, Case> all;
  const auto add = [&](const char* name, const ModelConfig& base) -> LoraConfig& {
    return all.emplace(name, Case{base, lora}).first->second.lora;
  };
  add("whole", plain).modules_to_save = {"lm_head", "embed_tokens", "norm"};
  add("whole_mlp", plain).modules_to_save = {"layers.1.mlp"};
  add("tied_head", tied).modules_to_save = {"lm_head"};
  add("embedding", plain).target_modules = {"q_proj", "embed_tokens", "lm_head"};
  add("tied_embedding", tied).target_modules = {"q_proj", "embed_tokens"};
  LoraConfig& bias = add("lora_bias", biased);
  bias.lora_bias = true;
  bias.target_modules = {"q_proj", "down_proj"};
  add("tokens", plain).trainable_token_indices = {{"", {9, 60, 0}}};
  add("tied_tokens", tied).trainable_token_indices = {{"", {9, 60, 0}}};
  add("two_tokens", plain).trainable_token_indices = {{"embed_tokens", {5, 9}}, {"lm_head", {33}}};
  return all;
}

}  // namespace

TEST_SUITE_BEGIN("peft_peers");

TEST_CASE("peers: PEFT loads lorapp's adapter and lorapp PEFT's, with the same logits and counts") {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has torch, transformers and peft");
    return;
  }
  const TemporaryFolder folder;
  ModelConfig config = tiny_config();
  config.model_type = "llama";
  config.architectures = {"LlamaForCausalLM"};
  config.attention_bias = true;
  tiny_model(7, config)->save_pretrained(folder / "model");

  const auto base = [&] { return CausalLM::from_pretrained(folder / "model"); };
  LoraConfig lora;
  lora.r = 4;
  lora.target_modules = {"q_proj", "v_proj", "down_proj"};
  lora.bias = "lora_only";
  lora.rank_pattern = {{"layers.0.self_attn.q_proj", 2}};
  lora.alpha_pattern = {{"down_proj", 7}};
  lora.init_lora_weights = LoraInit::random;
  PeftModel ours(base(), lora);
  ours.eval();
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : ours.adapter_state()) torch::Tensor(tensor).mul_(1.5);
  }
  ours.save_pretrained(folder / "ours");
  write_safetensors(folder / "ours.safetensors",
                    {{"ids", torch::tensor(kIds)}, {"logits", logits(ours)}});

  const std::string command = std::string("'") + python +
                              "' '" LORAPP_TEST_SOURCE_DIR "/tests/peft/exchange_with_peft.py' '" +
                              folder.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  PeftModel theirs = PeftModel::from_pretrained(base(), folder / "theirs", true);
  theirs.eval();
  const torch::Tensor want =
      SafetensorsFile::open(folder / "theirs.safetensors").view("logits").clone();
  const torch::Tensor got = logits(theirs);
  CHECK((got - want).norm().item<double>() < 1e-5 * want.norm().item<double>());
  std::ostringstream counts;
  theirs.print_trainable_parameters(counts);
  CHECK(counts.str() == read_file(folder / "counts.txt"));
}

TEST_CASE("peers: whole modules, embeddings, biases, tokens and named adapters pass both ways") {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has torch, transformers and peft");
    return;
  }
  const TemporaryFolder folder;
  for (const auto& [name, each] : cases()) {
    const auto dir = folder / name;
    tiny_model(7, each.base)->save_pretrained(dir / "model");
    PeftModel ours(CausalLM::from_pretrained(dir / "model"), each.lora);
    LoraConfig second{.r = 2, .init_lora_weights = LoraInit::random};
    // PEFT 0.21 cannot load a second adapter without token rows beside one that has them.
    second.trainable_token_indices = each.lora.trainable_token_indices;
    ours.add_adapter("second", second, 8);
    ours.eval();
    NamedTensors logits_of = {{"ids", torch::tensor(kIds)}};
    for (const std::string adapter : {"default", "second"}) {
      ours.set_adapter(adapter);
      {
        const torch::NoGradGuard no_grad;
        for (const auto& [key, tensor] : ours.adapter_state()) torch::Tensor(tensor).mul_(1.5);
      }
      logits_of.emplace_back(adapter, logits(ours));
    }
    ours.save_pretrained(dir / "ours");
    write_safetensors(dir / "ours.safetensors", logits_of);
  }
  const std::string command = std::string("'") + python +
                              "' '" LORAPP_TEST_SOURCE_DIR
                              "/tests/peft/exchange_parts_with_peft.py' '" +
                              folder.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  for (const auto& each : cases()) {
    CAPTURE(each.first);
    const auto dir = folder / each.first;
    PeftModel theirs =
        PeftModel::from_pretrained(CausalLM::from_pretrained(dir / "model"), dir / "theirs", true);
    theirs.load_adapter(dir / "theirs/second", "second", true);
    theirs.eval();
    const SafetensorsFile file = SafetensorsFile::open(dir / "theirs.safetensors");
    for (const std::string adapter : {"default", "second"}) {
      CAPTURE(adapter);
      theirs.set_adapter(adapter);
      const torch::Tensor want = file.view(adapter).clone();
      const double error = (logits(theirs) - want).norm().item<double>();
      CHECK(error < 1e-5 * want.norm().item<double>());
      const ParameterCounts counts = theirs.trainable_parameters();
      CHECK(std::to_string(counts.trainable) + " of " + std::to_string(counts.all) + "\n" ==
            read_file(dir / ("counts_" + adapter + ".txt")));
    }
    // Written again by lorapp, the files hold what PEFT wrote.
    theirs.save_pretrained(dir / "again");
    CHECK(read_file(dir / "again/adapter_model.safetensors") ==
          read_file(dir / "theirs/adapter_model.safetensors"));
    CHECK(read_file(dir / "again/second/adapter_model.safetensors") ==
          read_file(dir / "theirs/second/adapter_model.safetensors"));
  }
}

TEST_CASE("peers: llama.cpp computes lorapp's logits with an adapter that was exported to GGUF") {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr ||
      std::system(
          (std::string("'") + python + "' -c 'import gguf, llama_cpp' 2>/dev/null").c_str()) != 0) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has gguf and llama_cpp");
    return;
  }
  const TemporaryFolder folder;
  tiny_model()->save_pretrained(folder / "model");
  LoraConfig lora;
  lora.r = 4;
  lora.lora_alpha = 2;
  lora.use_rslora = true;
  lora.target_modules = {"all-linear"};
  lora.rank_pattern = {{"down_proj", 2}};
  lora.alpha_pattern = {{"k_proj", 3}};
  lora.init_lora_weights = LoraInit::random;
  PeftModel model(CausalLM::from_pretrained(folder / "model"), lora);
  model.eval();
  export_gguf_adapter(model, folder / "adapter.gguf");
  const torch::Tensor tuned = logits(model);
  model.disable_adapter();
  write_safetensors(folder / "ours.safetensors",
                    {{"ids", torch::tensor(kIds)}, {"base", logits(model)}, {"tuned", tuned}});
  const std::string command = std::string("'") + python +
                              "' '" LORAPP_TEST_SOURCE_DIR "/tests/peft/gguf_with_llama_cpp.py' '" +
                              folder.path().string() + "'";
  CHECK(std::system(command.c_str()) == 0);
}

TEST_SUITE_END();
