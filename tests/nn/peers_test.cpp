// Model folders that lorapp wrote, opened by transformers, and back.
#include "nn/toy.hpp"

#include <lorapp/generate/sampler.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/kv_cache.hpp>

#include "support/temporary_folder.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

const std::vector<std::int64_t> kIds = {3, 17, 60, 0, 5, 9, 9, 2, 33, 1, 4, 47};

ModelConfig family(const std::string& type, const std::string& architecture) {
  ModelConfig config = toy_config();
  config.model_type = type;
  config.architectures = {architecture};
  config.hidden_size = 60;  // a multiple of the heads, which Llama needs
  config.dtype = torch::kFloat32;
  return config;
}

std::vector<std::pair<std::string, ModelConfig>> families() {
  std::vector<std::pair<std::string, ModelConfig>> list;
  ModelConfig llama = family("llama", "LlamaForCausalLM");
  llama.attention_bias = true;
  llama.mlp_bias = true;
  for (const auto& [name, scaling] : std::vector<std::pair<std::string, RopeScaling>>{
           {"plain", {}},
           {"linear", {.type = RopeType::linear, .factor = 2.0}},
           {"dynamic", {.type = RopeType::dynamic, .factor = 2.0}},
           {"llama3",
            {.type = RopeType::llama3, .factor = 8.0, .original_max_position_embeddings = 32}},
           {"yarn", {.type = RopeType::yarn, .factor = 4.0}},
           {"yarn_all",
            {.type = RopeType::yarn,
            .factor = 4.0,
            .original_max_position_embeddings = 32,
            .mscale = 1.0,
            .mscale_all_dim = 0.5,
            .beta_fast = 8.0,
            .beta_slow = 0.5,
            .truncate = false}},
       }) {
    llama.rope_scaling = scaling;
    llama.max_position_embeddings = scaling.type == RopeType::dynamic ? 8 : 128;
    list.emplace_back("llama_" + name, llama);
  }
  ModelConfig mistral = family("mistral", "MistralForCausalLM");
  mistral.sliding_window = 5;
  mistral.tie_word_embeddings = true;
  list.emplace_back("mistral", mistral);
  ModelConfig qwen2 = family("qwen2", "Qwen2ForCausalLM");
  list.emplace_back("qwen2", qwen2);
  qwen2.sliding_window = 4;
  qwen2.layer_types = {"full_attention", "sliding_attention", "sliding_attention"};
  list.emplace_back("qwen2_window", qwen2);
  ModelConfig qwen3 = family("qwen3", "Qwen3ForCausalLM");
  list.emplace_back("qwen3", qwen3);
  qwen3.attention_bias = true;
  qwen3.sliding_window = 3;
  qwen3.layer_types = {"sliding_attention", "full_attention", "sliding_attention"};
  list.emplace_back("qwen3_window", qwen3);
  return list;
}

torch::Tensor logits(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single(kIds));
}

// The likeliest tokens behind kIds, one by one with a key-value cache as generate() takes them.
std::vector<std::int64_t> greedy(CausalLM& model, std::size_t count) {
  const torch::NoGradGuard no_grad;
  Sampler sampler(GenerationConfig{}, {});
  KvCache cache;
  std::vector<std::int64_t> context = kIds;
  std::vector<std::int64_t> tokens;
  torch::Tensor hidden = model.hidden_states(PackedInput::single(kIds, 0), &cache);
  while (true) {
    tokens.push_back(
        sampler.next(model.lm_head(hidden[-1]), context, static_cast<std::int64_t>(tokens.size())));
    if (tokens.size() == count) return tokens;
    const auto position = static_cast<std::int64_t>(context.size());
    context.push_back(tokens.back());
    hidden = model.hidden_states(PackedInput::single({tokens.back()}, position), &cache);
  }
}

}  // namespace

TEST_SUITE_BEGIN("nn_peers");

TEST_CASE(
    "peers: transformers opens lorapp's model folders and lorapp transformers', every family, and "
    "both continue a text with the same greedy tokens") {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  if (python == nullptr) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has torch and transformers");
    return;
  }
  const TemporaryFolder folder;
  NamedTensors tensors = {{"ids", torch::tensor(kIds)}};
  for (const auto& [name, config] : families()) {
    const auto model = toy_model(config);
    {
      const torch::NoGradGuard no_grad;
      std::uint64_t seed = 100;  // no part may be neutral, as new norms and biases are
      for (auto& item : model->named_parameters()) {
        if (item.key().ends_with("norm.weight") || item.key().ends_with(".bias")) {
          item.value().add_(0.3 * random_tensor(item.value().sizes(), ++seed));
        }
      }
    }
    model->save_pretrained(folder / ("ours/" + name));
    tensors.emplace_back(name, logits(*model));
  }
  write_safetensors(folder / "ours.safetensors", tensors);

  const std::string command = std::string("'") + python +
                              "' '" LORAPP_TEST_SOURCE_DIR "/tests/nn/exchange_models.py' '" +
                              folder.path().string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);

  const auto continuations = nlohmann::json::parse(read_file(folder / "greedy.json"));
  for (std::size_t i = 1; i < tensors.size(); ++i) {
    const auto& [name, want] = tensors[i];
    const auto& captured = name;  // clang 14 captures no binding
    CAPTURE(captured);
    const auto theirs = CausalLM::from_pretrained(folder / ("theirs/" + name));
    CHECK(torch::equal(logits(*theirs), want));
    const auto continued = CausalLM::from_pretrained(folder / ("theirs/" + name));
    const auto tokens = continuations.at(name).get<std::vector<std::int64_t>>();
    CHECK(tokens.size() == 40);
    CHECK(greedy(*continued, tokens.size()) == tokens);
  }
}

TEST_SUITE_END();
