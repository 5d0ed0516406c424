// The model families, from their own config.json: logits, loss and gradients of an adapter, and
// rotary frequencies, against transformers and peft.
#include "toy_model.hpp"

#include "support/golden.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/rotary.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

// families.py says which families there are; a new one is added here too.
const std::vector<std::string> kFamilies = {
    "llama3", "llama_linear", "llama_dynamic", "llama_yarn", "mistral_yarn", "qwen2", "qwen3"};

// The numbers in [-1, 1) that families.py makes of a tensor's name.
torch::Tensor uniform(const std::string& name, torch::IntArrayRef shape) {
  std::uint64_t state = 0xCBF29CE484222325U;
  for (const char byte : name) {
    state = (state ^ static_cast<unsigned char>(byte)) * 0x100000001B3U;
  }
  torch::Tensor values = torch::empty(shape, torch::kFloat32);
  auto* value = values.data_ptr<float>();
  for (std::int64_t i = 0; i < values.numel(); ++i) {
    state += 0x9E3779B97F4A7C15U;
    std::uint64_t z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    z ^= z >> 31;
    value[i] = static_cast<float>(z >> 40) / static_cast<float>(1 << 23) - 1.0F;
  }
  return values;
}

ModelConfig write_model(const TemporaryFolder& folder, const nlohmann::json& config_json) {
  folder.write("config.json", config_json.dump());
  const ModelConfig config = ModelConfig::from_pretrained(folder.path());
  NamedTensors tensors;
  for (const TensorSpec& spec : expected_tensors(config)) {
    const torch::Tensor value = uniform(spec.name, spec.shape) / 4;
    tensors.emplace_back(spec.name, spec.name.ends_with("norm.weight") ? 1 + value : value);
  }
  write_safetensors(folder / kWeightsName, tensors);
  return config;
}

PeftModel adapted(const TemporaryFolder& folder) {
  LoraConfig lora;
  lora.r = 2;
  lora.lora_alpha = 5;
  lora.lora_dropout = 0;
  lora.target_modules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                         "gate_proj", "up_proj", "down_proj"};
  PeftModel model(CausalLM::from_pretrained(folder.path(), {.dtype = torch::kFloat32}), lora);
  const torch::NoGradGuard no_grad;
  for (const auto& layer : model.adapted_layers()) {
    for (auto& parameter : layer.adapter->named_parameters()) {
      const std::string name =
          "base_model.model." + layer.path + ".lora_" + parameter.key() + ".weight";
      parameter.value().copy_(uniform(name, parameter.value().sizes()) / 4);
    }
  }
  model.train();
  return model;
}

}  // namespace

TEST_SUITE("golden families") {
  TEST_CASE("logits, loss and LoRA gradients of every family are those of transformers and peft") {
    const OneThread one_thread;
    const GoldenTensors golden("families.safetensors");
    const nlohmann::json configs = golden_json("families.json");
    CHECK(configs.size() == kFamilies.size() + 1);  // and "frequencies"
    const ToyBatch batch = toy_batch(golden);
    for (const std::string& name : kFamilies) {
      for (const auto& mode : kCheckpointingModes) {
        CAPTURE(name);
        CAPTURE(mode.second);
        const TemporaryFolder folder;
        write_model(folder, configs[name]);
        PeftModel model = adapted(folder);
        model.set_gradient_checkpointing(mode.first);
        const torch::Tensor logits = model.forward(batch.input);
        const torch::Tensor loss = mean_loss(logits, batch.next);
        CHECK_GOLDEN(logits, golden[name + ".logits"]);
        CHECK_GOLDEN(loss, golden[name + ".loss"]);
        loss.backward();
        std::map<std::string, torch::Tensor> gradients;
        for (const auto& layer : model.adapted_layers()) {
          for (const auto& parameter : layer.adapter->named_parameters()) {
            gradients["base_model.model." + layer.path + ".lora_" + parameter.key() + ".weight"] =
                parameter.value().grad();
          }
        }
        const auto names = golden.names_under(name + ".grad.");
        CHECK(names.size() == 28);  // two factors of seven layers, twice
        for (const std::string& parameter : names) {
          CAPTURE(parameter);
          CHECK_GOLDEN(gradients[parameter], golden[name + ".grad." + parameter]);
        }
      }
    }
  }

  TEST_CASE("a config.json that lorapp saved gives the same model as the one it was read from") {
    const GoldenTensors golden("families.safetensors");
    const nlohmann::json configs = golden_json("families.json");
    const ToyBatch batch = toy_batch(golden);
    for (const std::string& name : kFamilies) {
      CAPTURE(name);
      const TemporaryFolder folder;
      const ModelConfig config = write_model(folder, configs[name]);
      config.save(folder / "config.json");
      CHECK_GOLDEN(adapted(folder).forward(batch.input), golden[name + ".logits"]);
    }
  }

  TEST_CASE("a cache, filled token by token, gives the same logits in every family") {
    const GoldenTensors golden("families.safetensors");
    const nlohmann::json configs = golden_json("families.json");
    const ToyBatch batch = toy_batch(golden);
    for (const std::string& name : kFamilies) {
      // There the keys in a cache keep the rotation of the length they were written at.
      if (name == "llama_dynamic") continue;
      CAPTURE(name);
      const TemporaryFolder folder;
      write_model(folder, configs[name]);
      PeftModel model = adapted(folder);
      model.eval();
      const torch::NoGradGuard no_grad;
      const std::int64_t length = batch.input.cu_seqlens[1];
      KvCache cache;
      std::vector<torch::Tensor> logits;
      for (std::int64_t i = 0; i < length; ++i) {
        const auto id = batch.input.ids[i].item<std::int64_t>();
        logits.push_back(model.forward(PackedInput::single({id}, i), &cache));
      }
      CHECK_GOLDEN(torch::cat(logits), golden[name + ".logits"].slice(0, 0, length));
    }
  }

  TEST_CASE("dynamic scaling remembers the longest text until one within the limit comes") {
    const GoldenTensors golden("families.safetensors");
    const ToyBatch batch = toy_batch(golden);
    const TemporaryFolder folder;
    write_model(folder, golden_json("families.json")["llama_dynamic"]);
    PeftModel model = adapted(folder);
    const torch::NoGradGuard no_grad;
    CHECK_GOLDEN(model.forward(batch.input), golden["llama_dynamic.logits"]);
    const auto logits = [&](std::int64_t length) {
      const torch::Tensor ids = batch.input.ids.slice(0, 0, length).contiguous();
      return model.forward(PackedInput::single(
          {ids.data_ptr<std::int64_t>(), ids.data_ptr<std::int64_t>() + length}));
    };
    CHECK_GOLDEN(logits(9), golden["llama_dynamic.after.0"]);
    CHECK_GOLDEN(logits(5), golden["llama_dynamic.after.1"]);
    CHECK_GOLDEN(logits(9), golden["llama_dynamic.after.2"]);
    // The two texts of 9 tokens are the same, and their logits are not.
    CHECK(relative_error(golden["llama_dynamic.after.0"], golden["llama_dynamic.after.2"]) > 1e-3);
  }

  TEST_CASE("the frequencies of every rotary scaling are transformers' float32 numbers") {
    const GoldenTensors golden("families.safetensors");
    const nlohmann::json cases = golden_json("families.json")["frequencies"];
    REQUIRE(cases.size() == 13);
    for (std::size_t i = 0; i < cases.size(); ++i) {
      const nlohmann::json& one = cases[i];
      CAPTURE(i);
      CAPTURE(one.dump());
      const TemporaryFolder folder;
      const nlohmann::json file = {{"model_type", "llama"},
                                   {"vocab_size", 8},
                                   {"hidden_size", one["head_size"]},
                                   {"intermediate_size", 8},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", 1},
                                   {"max_position_embeddings", one["max_position_embeddings"]},
                                   {"rope_parameters", one["rope_parameters"]}};
      const ModelConfig c = ModelConfig::from_file(folder.write("config.json", file.dump()));
      RotaryEmbedding rotary(c.head_size(), c.rope_theta, c.rope_scaling,
                             c.max_position_embeddings);
      const auto length = one["length"].get<std::int64_t>();
      if (length > 0) rotary.at(torch::arange(length), torch::kFloat32);
      const torch::Tensor got = rotary.frequencies().inverse;
      const torch::Tensor want = golden["frequencies." + std::to_string(i)];
      REQUIRE(got.sizes() == want.sizes());
      // Bit for bit on one machine; another's pow may round otherwise.
      const double worst = ((got - want) / want).abs().max().item<double>();
      CHECK_MESSAGE(worst < 2.5e-7, "off by ", worst);
      CHECK(rotary.frequencies().attention_factor ==
            doctest::Approx(one["attention_factor"].get<double>()).epsilon(1e-12));
    }
  }
}
