// 4-bit folders exchanged with transformers and bitsandbytes.
#include "support/temporary_folder.hpp"

#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdlib>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

const std::vector<std::int64_t> kIds = {3, 17, 60, 0, 5, 9, 9, 2, 33};

// bitsandbytes 0.50.2 dequantizes rows that are no multiple of the block size wrongly on a CPU.
ModelConfig config_of_whole_blocks() {
  ModelConfig config;
  config.vocab_size = 61;
  config.hidden_size = 128;
  config.intermediate_size = 192;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.max_position_embeddings = 128;
  config.initializer_range = 0.1;
  config.dtype = torch::kFloat32;
  return config;
}

torch::Tensor logits(const std::filesystem::path& dir) {
  const torch::NoGradGuard no_grad;
  return CausalLM::from_pretrained(dir)->forward(PackedInput::single(kIds));
}

}  // namespace

TEST_SUITE_BEGIN("nn_peers");

TEST_CASE("peers: 4-bit folders written by lorapp or transformers give the other the same logits") {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has torch and transformers");
    return;
  }
  const TemporaryFolder folder;
  CausalLM::from_config(config_of_whole_blocks(), 5)->save_pretrained(folder / "model");
  quantize_pretrained(folder / "model", folder / "ours-nf4",
                      {.quant_config = {.use_double_quant = true}, .max_shard_bytes = 100'000});
  quantize_pretrained(folder / "model", folder / "ours-fp4",
                      {.quant_config = {.quant_type = QuantType::fp4, .skip_modules = {"v_proj"}}});
  write_safetensors(folder / "ours.safetensors", {{"ids", torch::tensor(kIds)},
                                                  {"nf4", logits(folder / "ours-nf4")},
                                                  {"fp4", logits(folder / "ours-fp4")}});

  const std::string command = std::string("'") + python +
                              "' '" LORAPP_TEST_SOURCE_DIR
                              "/tests/nn/exchange_quantized.py' '" +
                              folder.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  const auto theirs = SafetensorsFile::open(folder / "theirs.safetensors");
  for (const std::string name : {"nf4", "fp4"}) {
    CAPTURE(name);
    const torch::Tensor want = theirs.view(name);
    const torch::Tensor got = logits(folder / ("theirs-" + name));
    CHECK((got - want).norm().item<double>() < 1e-5 * want.norm().item<double>());
  }
}

TEST_SUITE_END();
