// Adapters merged into model folders: the numbers, the folder, the report.
#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/io/checkpoint.hpp>
#include <lorapp/nn/quantize_pretrained.hpp>
#include <lorapp/peft/merge_pretrained.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/quant/ops.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <map>
#include <set>
#include <string>
#include <vector>

using namespace lorapp;
using namespace lorapp::test;

namespace {

const QuantConfig kNf4{.compute_dtype = torch::kFloat32};

torch::Tensor logits(CausalLM& model) {
  const torch::NoGradGuard no_grad;
  return model.forward(PackedInput::single({3, 17, 60, 0, 5, 9, 9, 2, 33}));
}

torch::Tensor logits(const std::filesystem::path& dir) {
  return logits(*CausalLM::from_pretrained(dir));
}

double relative(const torch::Tensor& got, const torch::Tensor& want) {
  const torch::Tensor wide = want.to(torch::kFloat64);
  return (got.to(torch::kFloat64) - wide).norm().item<double>() / wide.norm().item<double>();
}

// A configuration whose adapter starts with random values.
LoraConfig random_lora(std::vector<std::string> targets = {"q_proj", "v_proj"}) {
  LoraConfig lora;
  lora.r = 4;
  lora.target_modules = std::move(targets);
  lora.init_lora_weights = LoraInit::random;
  return lora;
}

struct Case {
  ModelConfig base;
  LoraConfig lora;
};

// Everything that an adapter may hold.
std::map<std::string, Case> cases() {
  ModelConfig tied = tiny_config();
  tied.tie_word_embeddings = true;
  ModelConfig biased = tiny_config();
  biased.model_type = "llama";
  biased.architectures = {"LlamaForCausalLM"};
  biased.attention_bias = true;
  biased.mlp_bias = true;
  std::map<std::string, Case> all;
  const auto add = [&](const char* name, const ModelConfig& base) -> LoraConfig& {
    return all.emplace(name, Case{base, random_lora()}).first->second.lora;
  };
  LoraConfig& patterns = add("patterns", tiny_config());
  patterns.target_modules = {"all-linear"};
  patterns.use_rslora = true;
  patterns.rank_pattern = {{"down_proj", 2}};
  patterns.alpha_pattern = {{"k_proj", 3}};
  add("whole", tiny_config()).modules_to_save = {"lm_head", "embed_tokens", "norm"};
  add("embeddings", tiny_config()).target_modules = {"q_proj", "embed_tokens", "lm_head"};
  LoraConfig& bias = add("bias", biased);
  bias.lora_bias = true;
  bias.bias = "all";
  bias.target_modules = {"q_proj", "down_proj"};
  add("tokens", tiny_config()).trainable_token_indices = {{"embed_tokens", {5, 9}},
                                                          {"lm_head", {33}}};
  add("tied_tokens", tied).trainable_token_indices = {{"", {9, 60, 0}}};
  add("tied_head", tied).modules_to_save = {"lm_head"};
  add("tied_table", tied).modules_to_save = {"embed_tokens"};
  add("tied_lora", tied).target_modules = {"q_proj", "embed_tokens"};
  add("tied_head_lora", tied).target_modules = {"q_proj", "lm_head"};
  return all;
}

// The base in "model", a trained adapter in "adapter".
void make(const std::filesystem::path& dir,
          const Case& each,
          torch::Dtype dtype = torch::kFloat32) {
  auto base = tiny_model(7, each.base);
  base->to(dtype);
  base->save_pretrained(dir / "model");
  PeftModel model(CausalLM::from_pretrained(dir / "model"), each.lora);
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model.adapter_state()) {
      torch::Tensor(tensor).add_(torch::ones_like(tensor), 0.02).mul_(1.25);
    }
  }
  model.save_pretrained(dir / "adapter");
}

torch::Tensor adapted(const std::filesystem::path& dir, const LoadOptions& options = {}) {
  PeftModel model = PeftModel::from_pretrained(CausalLM::from_pretrained(dir / "model", options),
                                               dir / "adapter");
  return logits(model);
}

const MergedWeight& entry(const MergeReport& report, const std::string& name) {
  for (const MergedWeight& weight : report.weights) {
    if (weight.name == name) return weight;
  }
  FAIL("the report has no " << name);
  return report.weights.front();
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("merge_pretrained: the folder computes what the adapter on its base computes") {
  const TemporaryFolder folder;
  for (const auto& [name, each] : cases()) {
    const auto& captured = name;  // clang 14 captures no binding
    CAPTURE(captured);
    const auto dir = folder / name;
    make(dir, each);
    const torch::Tensor want = adapted(dir);
    CHECK(relative(logits(dir / "model"), want) > 1e-3);
    const MergeReport report = merge_pretrained(dir / "model", dir / "adapter", dir / "merged",
                                                {.max_shard_bytes = 20'000});
    CHECK(relative(logits(dir / "merged"), want) < 2e-6);
    CHECK(report.changed_weights == static_cast<std::int64_t>(report.weights.size()));
    CHECK(report.quantized_weights == 0);
    CHECK(std::filesystem::exists(dir / "merged" / kWeightsIndexName));
    const bool unties = name == "tied_head" || name == "tied_table" || name == "tied_lora" ||
                        name == "tied_head_lora";
    CHECK(report.untied_head == unties);
    CHECK(ModelConfig::from_pretrained(dir / "merged").tie_word_embeddings ==
          (each.base.tie_word_embeddings && !unties));
    // The same on the values of the weights in 4 bits, where no 4-bit module is saved whole.
    if (name == "whole") continue;
    const LoadOptions load{.quant_config = kNf4};
    merge_pretrained(dir / "model", dir / "adapter", dir / "dequantized",
                     {.onto = MergeOnto::dequantized, .quant_config = kNf4});
    CHECK(relative(logits(dir / "dequantized"), adapted(dir, load)) < 5e-6);
  }
}

TEST_CASE("merge_pretrained: in bfloat16 the weights are those of merge_and_unload, bit for bit") {
  const TemporaryFolder folder;
  for (const char* name : {"patterns", "embeddings", "bias", "tokens"}) {
    CAPTURE(name);
    const auto dir = folder / name;
    make(dir, cases().at(name), torch::kBFloat16);
    merge_pretrained(dir / "model", dir / "adapter", dir / "merged");
    PeftModel model =
        PeftModel::from_pretrained(CausalLM::from_pretrained(dir / "model"), dir / "adapter");
    const auto want = model.merge_and_unload()->named_parameters();
    const Checkpoint merged = Checkpoint::open(dir / "merged");
    CHECK(merged.names().size() == want.size());
    for (const std::string& tensor : merged.names()) {
      CAPTURE(tensor);
      CHECK(torch::equal(merged.view(tensor), want[tensor]));
    }
  }
}

TEST_CASE("merge_pretrained: a 4-bit folder is merged onto its dequantized values or again 4-bit") {
  const TemporaryFolder folder;
  make(folder.path(), cases().at("patterns"), torch::kBFloat16);
  for (const bool nested : {false, true}) {
    const TemporaryFolder out;
    QuantConfig quant = kNf4;
    quant.use_double_quant = nested;
    quantize_pretrained(folder / "model", out / "q", {.quant_config = quant});
    const auto merge = [&](const std::filesystem::path& from, const char* to,
                           const MergeOptions& options) {
      return merge_pretrained(from, folder / "adapter", out / to, options);
    };
    merge(out / "q", "plain", {});
    merge(folder / "model", "same", {.onto = MergeOnto::dequantized, .quant_config = quant});
    CHECK(read_file(out / "plain" / kWeightsName) == read_file(out / "same" / kWeightsName));
    CHECK_FALSE(contains(read_file(out / "plain/config.json"), "quantization_config"));
    CHECK(contains(read_file(out / "q/config.json"), "quantization_config"));

    // Every matrix has an update here, so 4-bit sums are the dense sums in 4 bits.
    const MergeReport report = merge(out / "q", "again", {.onto = MergeOnto::requantized});
    quantize_pretrained(out / "plain", out / "want", {.quant_config = quant});
    CHECK(read_file(out / "again" / kWeightsName) == read_file(out / "want" / kWeightsName));
    CHECK(report.quantized_weights == 14);
    const auto config = ModelConfig::from_pretrained(out / "again");
    REQUIRE(config.quantization_config);
    CHECK(config.quantization_config->use_double_quant == nested);
    CHECK(report.worst()->relative_error().value() < 0.15);
    CHECK(report.worst()->relative_error().value() > 0.03);
    CHECK(contains(error_of([&] { merge(out / "q", "no", {.onto = MergeOnto::original}); }),
                   "no original ones"));
  }
}

TEST_CASE("merge_pretrained: a matrix without an update keeps its codes when sums become 4-bit") {
  const TemporaryFolder folder;
  make(folder.path(), {tiny_config(), random_lora()});
  const QuantConfig quant{.use_double_quant = true};
  quantize_pretrained(folder / "model", folder / "q", {.quant_config = quant});
  merge_pretrained(folder / "q", folder / "adapter", folder / "m",
                   {.onto = MergeOnto::requantized});
  const Checkpoint before = Checkpoint::open(folder / "q");
  const Checkpoint after = Checkpoint::open(folder / "m");
  CHECK(before.names().size() == after.names().size());
  for (const std::string& name : before.names()) {
    CAPTURE(name);
    const bool adapted = contains(name, "q_proj.weight") || contains(name, "v_proj.weight");
    if (adapted && name.ends_with("proj.weight")) {
      CHECK_FALSE(torch::equal(before.view(name), after.view(name)));
    } else if (!adapted) {
      CHECK(torch::equal(before.view(name), after.view(name)));
    }
  }
}

TEST_CASE("merge_pretrained: the report's norms and errors are those of the tensors") {
  const TemporaryFolder folder;
  make(folder.path(), {tiny_config(), random_lora()}, torch::kBFloat16);
  const std::string q_proj = "model.layers.1.self_attn.q_proj.weight";
  const std::string o_proj = "model.layers.1.self_attn.o_proj.weight";
  const SafetensorsFile adapter =
      SafetensorsFile::open(folder / "adapter/adapter_model.safetensors");
  const std::string lora = "base_model.model.model.layers.1.self_attn.q_proj.lora_";
  const torch::Tensor delta =
      adapter.view(lora + "B.weight").mm(adapter.view(lora + "A.weight")) * 8;
  const Checkpoint model = Checkpoint::open(folder / "model");
  for (const bool in_4bit : {false, true}) {
    CAPTURE(in_4bit);
    const TemporaryFolder out;
    const MergeReport report =
        merge_pretrained(folder / "model", folder / "adapter", out / "m",
                         {.quant_config = in_4bit ? std::optional(kNf4) : std::nullopt});
    CHECK(report.weights.size() == (in_4bit ? 14 : 4));
    CHECK(report.onto == MergeOnto::original);
    const Checkpoint merged = Checkpoint::open(out / "m");
    const auto seen_of = [&](const std::string& name) {
      const torch::Tensor weight = model.view(name);
      return (in_4bit ? dequantize_4bit(quantize_4bit(weight, kNf4)) : weight).to(torch::kFloat32);
    };
    const MergedWeight& got = entry(report, q_proj);
    const torch::Tensor seen = seen_of(q_proj);
    const torch::Tensor error = merged.view(q_proj).to(torch::kFloat32) - (seen + delta);
    CHECK(got.seen_norm == doctest::Approx(seen.norm().item<double>()).epsilon(1e-5));
    CHECK(got.update_norm == doctest::Approx(delta.norm().item<double>()).epsilon(1e-5));
    CHECK(got.error_norm == doctest::Approx(error.norm().item<double>()).epsilon(1e-4));
    CHECK(got.max_abs_error == doctest::Approx(error.abs().max().item<double>()).epsilon(1e-4));
    CHECK(got.changed);
    CHECK((got.relative_error().value() > 0.01) == in_4bit);
    CHECK(got.shape == std::vector<std::int64_t>{40, 40});
    if (!in_4bit) continue;
    const MergedWeight& still = entry(report, o_proj);
    CHECK_FALSE(still.changed);
    CHECK(still.update_norm == 0);
    CHECK(still.error_norm ==
          doctest::Approx(
              (model.view(o_proj).to(torch::kFloat32) - seen_of(o_proj)).norm().item<double>())
              .epsilon(1e-4));
  }
}

TEST_CASE("merge_pretrained: keeps unknown keys of config.json and copies the side files") {
  const TemporaryFolder folder;
  make(folder.path(), {tiny_config(), random_lora()});
  std::string text = read_file(folder / "model/config.json");
  text.insert(text.find('{') + 1, "\"a_key_of_mine\": [1, 2],");
  folder.write("model/config.json", text);
  folder.write("model/tokenizer_config.json", "{ \"odd\":  1}");
  folder.write("model/generation_config.json", "{\"eos_token_id\":7}");
  const MergeReport report = merge_pretrained(folder / "model", folder / "adapter", folder / "m",
                                              {.dtype = torch::kFloat16});
  CHECK(contains(read_file(folder / "m/config.json"), "a_key_of_mine"));
  CHECK(read_file(folder / "m/tokenizer_config.json") == "{ \"odd\":  1}");
  CHECK(read_file(folder / "m/generation_config.json") == "{\"eos_token_id\":7}");
  CHECK((ModelConfig::from_pretrained(folder / "m").dtype == torch::kFloat16));
  CHECK(report.bytes == 2 * count_parameters(tiny_config()));
}

TEST_CASE("merge_pretrained: overwriting replaces a model folder and nothing else") {
  const TemporaryFolder folder;
  make(folder.path(), {tiny_config(), random_lora()});
  const auto merge = [&](const std::filesystem::path& to, bool overwrite = true) {
    return error_of([&] {
      merge_pretrained(folder / "model", folder / "adapter", to, {.overwrite = overwrite});
    });
  };
  CHECK(merge(folder / "m", false) == "");
  folder.write("m/old.txt", "old");
  CHECK(contains(merge(folder / "m", false), "not empty"));
  CHECK(std::filesystem::exists(folder / "m/old.txt"));
  CHECK(merge(folder / "m") == "");
  CHECK_FALSE(std::filesystem::exists(folder / "m/old.txt"));
  folder.write("mine/letter.txt", "dear");
  CHECK(contains(merge(folder / "mine"), "is no model folder"));
  CHECK(contains(merge(folder / "model"), "which is read"));
  CHECK(contains(merge(folder / "adapter"), "is no model folder"));
  folder.write("config.json", "{}");
  CHECK(contains(merge(folder.path()), "or a folder around it"));
  CHECK(read_file(folder / "mine/letter.txt") == "dear");
}

TEST_CASE("merge_pretrained: an error leaves no folder behind") {
  const TemporaryFolder folder;
  LoraConfig with_bias = random_lora({"q_proj"});
  make(folder.path(), {tiny_config(), random_lora()});
  const auto error = [&](const MergeOptions& options = {}) {
    return error_of(
        [&] { merge_pretrained(folder / "model", folder / "adapter", folder / "out", options); });
  };
  CHECK(contains(error({.onto = MergeOnto::dequantized}), "needs a quantization"));
  CHECK(contains(error({.dtype = torch::kFloat64}), "float32, bfloat16 or float16"));
  {
    NamedTensors tensors;
    const auto path = folder / "adapter/adapter_model.safetensors";
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const std::string& name : file.names())
      tensors.emplace_back(name, file.view(name).clone());
    tensors.back().second.mul_(1e30);
    write_safetensors(path, tensors);
  }
  CHECK(contains(error({.dtype = torch::kFloat16}), "not finite in Half"));
  with_bias.lora_bias = true;
  ModelConfig biased = tiny_config();
  biased.model_type = "llama";
  biased.architectures = {"LlamaForCausalLM"};
  biased.attention_bias = true;
  std::filesystem::remove_all(folder / "model");
  std::filesystem::remove_all(folder / "adapter");
  make(folder.path(), {biased, with_bias});
  std::filesystem::remove_all(folder / "model");
  tiny_model()->save_pretrained(folder / "model");
  CHECK(contains(error(), "model.layers.1.self_attn.q_proj has no bias that could take"));
  std::set<std::string> left;
  for (const auto& item : std::filesystem::directory_iterator(folder.path())) {
    left.insert(item.path().filename().string());
  }
  CHECK(left == std::set<std::string>{"adapter", "model"});
}

TEST_SUITE_END();
