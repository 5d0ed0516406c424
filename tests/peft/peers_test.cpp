#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/torch.h>

#include <cstdlib>
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

TEST_SUITE_END();
