// Merged folders in transformers, and models as GGUF in llama.cpp.
#include "support/shared_data.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"
#include "support/tiny_tokenizer.hpp"

#include <lorapp/data/tokenizer.hpp>
#include <lorapp/generate/generate.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/export_gguf.hpp>
#include <lorapp/peft/merge_pretrained.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;
namespace fs = std::filesystem;

namespace {

const std::vector<std::int64_t> kIds = {3, 17, 60, 0, 5, 9, 9, 2, 33};

// Runs a script of this folder; false, with a message, where its modules are missing.
bool run_script(const std::string& script, const fs::path& folder, const std::string& modules) {
  const char* python = std::getenv("LORAPP_PEERS_PYTHON");
  const std::string quoted = std::string("'") + (python != nullptr ? python : "") + "'";
  if (python == nullptr ||
      std::system((quoted + " -c 'import " + modules + "' 2>/dev/null").c_str()) != 0) {
    MESSAGE("skipped: LORAPP_PEERS_PYTHON names no python that has ", modules);
    return false;
  }
  const std::string command =
      quoted + " '" LORAPP_TEST_SOURCE_DIR "/tests/peft/" + script + "' '" + folder.string() + "'";
  CHECK(std::system(command.c_str()) == 0);
  return true;
}

torch::Tensor logits(CausalLM& model, const std::vector<std::int64_t>& ids = kIds) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single(ids)).to(torch::kFloat32);
}

void make_adapter(const fs::path& model_dir, const fs::path& dir, LoraConfig lora, double size) {
  lora.init_lora_weights = LoraInit::random;
  PeftModel model(CausalLM::from_pretrained(model_dir), lora);
  const torch::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model.adapter_state()) torch::Tensor(tensor).mul_(size);
  model.save_pretrained(dir);
}

const std::vector<std::string> kTexts = {
    "The capital of France is Paris.",
    "  two spaces,\ttab\nand\n\nlines ",
    "",
    " ",
    "a",
    "naïve café, Ünïcödé 東京 🦊🦊 \u200b",
    "It's 12345 o'clock; he'll say: \"don't!\" (really?)",
    "\x01\x7f control, </s> and <s> and <|eot_id|> look special",
    std::string(300, ' ') + "x" + std::string(40, '\n')};

// The ids of all texts, without bos.
nlohmann::json tokens_of(const fs::path& dir) {
  const Tokenizer tokenizer = Tokenizer::from_pretrained(dir);
  nlohmann::json ids = nlohmann::json::array();
  for (const std::string& text : kTexts) ids.push_back(tokenizer.encode(text, false));
  return ids;
}

// The folder's model as it is in a GGUF file of that type.
fs::path rounded(const fs::path& model, const fs::path& to, GgufType type) {
  fs::create_directories(to);
  fs::copy(model / "config.json", to / "config.json");
  fs::copy(model / "generation_config.json", to / "generation_config.json");
  const Checkpoint checkpoint = Checkpoint::open(model);
  NamedTensors tensors;
  for (const std::string& name : checkpoint.names()) {
    torch::Tensor value = checkpoint.view(name).to(torch::kFloat32);
    if (value.dim() > 1) {
      value = gguf_decode(gguf_encode(value, type), value.sizes().vec(), type);
    }
    tensors.emplace_back(name, value);
  }
  write_safetensors(to / kWeightsName, tensors);
  return to;
}

}  // namespace

TEST_SUITE_BEGIN("peft_peers");

TEST_CASE(
    "peers: transformers computes with merged folders what PEFT's merge_and_unload computes") {
  const TemporaryFolder folder;
  ModelConfig tied = tiny_config();
  tied.tie_word_embeddings = true;
  ModelConfig biased = tiny_config();
  biased.model_type = "llama";
  biased.architectures = {"LlamaForCausalLM"};
  biased.attention_bias = true;
  const auto write = [&](const std::string& name, const ModelConfig& base, const LoraConfig& lora) {
    const fs::path dir = folder / name;
    tiny_model(7, base)->save_pretrained(dir / "model");
    make_adapter(dir / "model", dir / "adapter", lora, 1.5);
    merge_pretrained(dir / "model", dir / "adapter", dir / "merged", {.max_shard_bytes = 30'000});
  };
  write("patterns", tiny_config(),
        {.r = 4,
         .target_modules = {"all-linear"},
         .use_rslora = true,
         .rank_pattern = {{"down_proj", 2}},
         .alpha_pattern = {{"k_proj", 3}}});
  write("whole", tiny_config(), {.r = 4, .modules_to_save = {"lm_head", "embed_tokens", "norm"}});
  write("embeddings", tiny_config(),
        {.r = 4, .target_modules = {"q_proj", "embed_tokens", "lm_head"}});
  write("bias", biased,
        {.r = 4, .target_modules = {"q_proj", "k_proj"}, .bias = "lora_only", .lora_bias = true});
  write("tokens", tiny_config(), {.r = 4, .trainable_token_indices = {{"", {9, 60, 0}}}});
  write("tied_tokens", tied, {.r = 4, .trainable_token_indices = {{"", {9, 60, 0}}}});
  write("tied_head", tied, {.r = 4, .modules_to_save = {"lm_head"}});
  write("tied_embedding", tied, {.r = 4, .target_modules = {"q_proj", "embed_tokens"}});
  run_script("merged_with_transformers.py", folder.path(), "torch, transformers, peft");
}

TEST_CASE(
    "peers: llama.cpp makes our tokens and our greedy text of the quickstart's base as GGUF") {
  const TemporaryFolder folder;
  const fs::path base = fs::path(LORAPP_TEST_SOURCE_DIR) / "examples/quickstart/base";
  make_adapter(base, folder / "adapter", {.r = 4, .target_modules = {"all-linear"}}, 0.05);
  merge_pretrained(base, folder / "adapter", folder / "merged");
  const Tokenizer tokenizer = Tokenizer::from_pretrained(base);
  nlohmann::json cases = nlohmann::json::array();
  for (const GgufType type : {GgufType::f16, GgufType::bf16, GgufType::q8_0}) {
    const std::string name(gguf_type_name(type));
    export_gguf(folder / "merged", folder / (name + ".gguf"), {.type = type});
    const auto model = CausalLM::from_pretrained(rounded(folder / "merged", folder / name, type),
                                                 {.dtype = torch::kFloat32});
    nlohmann::json each = {{"file", name + ".gguf"}, {"texts", kTexts}, {"ids", tokens_of(base)}};
    for (const std::string prompt : {"Q: What is the capital of France?\nA:",
                                     "Name the past tense of sleep.", "The dolphin"}) {
      const GenerationResult result =
          generate(*model, tokenizer, prompt, {.max_new_tokens = 60, .ignore_eos = true});
      CHECK(result.tokens.size() == 60);
      each["greedy"].push_back(
          {{"prompt", prompt}, {"prompt_ids", result.prompt_tokens}, {"new_ids", result.tokens}});
    }
    cases.push_back(each);
  }
  folder.write("cases.json", cases.dump());
  run_script("gguf_model_with_llama_cpp.py", folder.path(), "gguf, llama_cpp");
}

TEST_CASE("peers: llama.cpp computes our logits, whatever the family and the rotary scaling") {
  const TemporaryFolder folder;
  nlohmann::json cases = nlohmann::json::array();
  const auto add = [&](const std::string& name, const std::string& type, const char* architecture,
                       const std::function<void(ModelConfig&)>& change) {
    ModelConfig config = tiny_config();
    config.model_type = type;
    config.architectures = {architecture};
    config.vocab_size = kTinyVocabSize;
    change(config);
    const fs::path dir = folder / name;
    auto model = tiny_model(7, config);
    {
      // Biases and norms that are not what they start as.
      const torch::NoGradGuard no_grad;
      for (auto& entry : model->named_parameters()) {
        if (entry.value().dim() == 1) entry.value().uniform_(0.5, 1.5);
      }
    }
    model->save_pretrained(dir);
    write_tiny_tokenizer(dir);
    export_gguf(dir, folder / (name + ".gguf"), {.type = GgufType::f32});
    std::vector<std::int64_t> ids;
    for (std::int64_t i = 0; i < 60; ++i) ids.push_back((i * i + 7 * i + 5) % kTinyVocabSize);
    write_safetensors(folder / (name + ".safetensors"), {{"logits", logits(*model, ids)}});
    cases.push_back(
        {{"file", name + ".gguf"}, {"logits", name + ".safetensors"}, {"logit_ids", ids}});
  };
  torch::manual_seed(1);
  const auto same = [](ModelConfig&) {};
  add("mistral", "mistral", "MistralForCausalLM", same);
  add("qwen2", "qwen2", "Qwen2ForCausalLM", same);
  add("qwen3", "qwen3", "Qwen3ForCausalLM", same);
  const char* const llama = "LlamaForCausalLM";
  add("bias", "llama", llama, [](ModelConfig& config) {
    config.attention_bias = true;
    config.tie_word_embeddings = true;
  });
  add("linear", "llama", llama,
      [](ModelConfig& config) { config.rope_scaling = {.type = RopeType::linear, .factor = 4}; });
  add("llama3", "llama", llama, [](ModelConfig& config) {
    config.rope_scaling = {
        .type = RopeType::llama3, .factor = 8, .original_max_position_embeddings = 32};
  });
  add("yarn", "llama", llama, [](ModelConfig& config) {
    config.rope_scaling = {
        .type = RopeType::yarn, .factor = 4, .original_max_position_embeddings = 32};
  });
  folder.write("cases.json", cases.dump());
  run_script("gguf_model_with_llama_cpp.py", folder.path(), "gguf, llama_cpp");
}

TEST_CASE("peers: llama.cpp makes our tokens of every kind of tokenizer that is exported") {
  const TemporaryFolder folder;
  nlohmann::json cases = nlohmann::json::array();
  const auto add = [&](const std::string& name, const fs::path& tokenizer) {
    ModelConfig config = tiny_config();
    config.vocab_size = Tokenizer::from_pretrained(tokenizer).vocab_size();
    tiny_model(7, config)->save_pretrained(folder / name);
    for (const auto& entry : fs::directory_iterator(tokenizer)) {
      if (entry.path().filename().string().starts_with("config")) continue;
      fs::copy(entry.path(), folder / name, fs::copy_options::skip_existing);
    }
    export_gguf(folder / name, folder / (name + ".gguf"));
    cases.push_back(
        {{"file", name + ".gguf"}, {"texts", kTexts}, {"ids", tokens_of(folder / name)}});
  };
  const fs::path tokenizers = fs::path(LORAPP_TEST_SOURCE_DIR) / "tests/data/tokenizers";
  for (const char* name : {"llama_like", "json_gpt2", "json_llama3", "json_qwen2"}) {
    add(name, tokenizers / name);
  }
  if (const auto mistral = shared_data("tokenizers/mistral-v1")) add("mistral", *mistral);
  folder.write("cases.json", cases.dump());
  run_script("gguf_model_with_llama_cpp.py", folder.path(), "gguf, llama_cpp");
}

TEST_SUITE_END();
