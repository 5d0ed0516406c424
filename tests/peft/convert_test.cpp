// Adapters in MLX's files and in GGUF.
#include "peft/tiny_lora.hpp"
#include "support/error_of.hpp"
#include "support/gguf_file.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/convert.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>
#include <nlohmann/json.hpp>

#include <map>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

LoraConfig patterned() {
  LoraConfig config;
  config.r = 4;
  config.lora_alpha = 6;
  config.use_rslora = true;
  config.target_modules = {"q_proj", "k_proj", "down_proj"};
  config.rank_pattern = {{"down_proj", 2}};
  config.alpha_pattern = {{"k_proj", 3}};
  config.init_lora_weights = LoraInit::random;
  return config;
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("mlx: an adapter written and read again gives the same logits, in MLX's shapes") {
  const TemporaryFolder folder;
  LoraConfig config = patterned();
  config.target_modules.push_back("model.embed_tokens");
  config.layers_to_transform = {1};
  PeftModel model(tiny_model(), config);
  model.eval();
  const torch::Tensor tuned = logits(model);
  save_mlx_adapter(model, folder / "mlx");
  const auto written = nlohmann::json::parse(read_file(folder / "mlx/adapter_config.json"));
  CHECK(written["fine_tune_type"] == "lora");
  CHECK(written["num_layers"] == 1);
  CHECK(written["lora_parameters"]["rank"] == 4);
  CHECK(written["lora_parameters"]["scale"] == 3);
  CHECK(written["lora_parameters"]["keys"] == nlohmann::json{"mlp.down_proj", "model.embed_tokens",
                                                             "self_attn.k_proj",
                                                             "self_attn.q_proj"});
  const SafetensorsFile file = SafetensorsFile::open(folder / "mlx/adapters.safetensors");
  CHECK(file.info("model.layers.1.mlp.down_proj.lora_a").shape == std::vector<std::int64_t>{72, 4});
  CHECK(file.info("model.layers.1.mlp.down_proj.lora_b").shape == std::vector<std::int64_t>{4, 40});
  const auto base = tiny_model();
  PeftModel again = load_mlx_adapter(base, folder / "mlx");
  CHECK(torch::allclose(logits(again), tuned, 1e-5, 1e-5));
  CHECK(again.trainable_parameters().trainable == 0);
}

TEST_CASE("mlx: the update is scale · (lora_a lora_b)ᵀ") {
  const TemporaryFolder folder;
  const torch::Tensor a = torch::randn({40, 2});
  const torch::Tensor b = torch::randn({2, 20});
  const std::string name = "model.layers.0.self_attn.v_proj";
  write_safetensors(folder / "adapters.safetensors", {{name + ".lora_a", a}, {name + ".lora_b", b}},
                    {{"format", "mlx"}});
  folder.write(
      "adapter_config.json",
      R"({"num_layers": 2, "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0}})");
  PeftModel model = load_mlx_adapter(tiny_model(), folder.path());
  REQUIRE(model.adapted_layers().size() == 1);
  CHECK(model.adapted_layers()[0].path == name);
  CHECK(torch::allclose(model.adapted_layers()[0].adapter->delta_weight(), 20 * a.mm(b).t()));
}

TEST_CASE("mlx: what cannot be read or written is an error, and the base is left as it was") {
  const TemporaryFolder folder;
  const auto base = tiny_model();
  const auto refused = [&](const char* config) {
    folder.write("adapter_config.json", config);
    const std::string message = error_of([&] { load_mlx_adapter(base, folder.path()); });
    for (const auto& parameter : base->parameters()) CHECK(parameter.requires_grad());
    return message;
  };
  constexpr const char* kGood = R"({"lora_parameters": {"rank": 2, "scale": 20.0}})";
  CHECK(
      contains(refused(R"({"fine_tune_type": "dora", "lora_parameters": {"rank": 2, "scale": 1}})"),
               "fine_tune_type is \"dora\""));
  CHECK(contains(refused(R"({"peft_type": "LORA"})"), "this is PEFT's adapter"));
  CHECK(contains(refused("{}"), "lora_parameters is missing"));
  const std::string name = "model.layers.0.self_attn.v_proj";
  write_safetensors(folder / "adapters.safetensors",
                    {{name + ".lora_a", torch::zeros({40, 3})}, {name + ".m", torch::zeros({20})}});
  CHECK(contains(refused(kGood), "v_proj.m; it is DoRA's"));
  write_safetensors(folder / "adapters.safetensors", {{name + ".lora_a", torch::zeros({40, 3})}});
  const std::string shapes = refused(kGood);
  CHECK(contains(shapes, "missing model.layers.0.self_attn.v_proj.lora_b"));
  CHECK(contains(shapes, "lora_a has the shape [40, 3]; expected [40, 2]"));
  write_safetensors(folder / "adapters.safetensors", {{"model.h.0.lora_a", torch::zeros({4, 2})}});
  CHECK(contains(refused(kGood), "model.h.0"));
  LoraConfig config = patterned();
  config.modules_to_save = {"lm_head"};
  const PeftModel whole(tiny_model(), config);
  const std::string message = error_of([&] { save_mlx_adapter(whole, folder / "out"); });
  CHECK(contains(message, "lm_head.weight is no low-rank matrix"));
  CHECK(contains(error_of([&] { export_gguf_adapter(whole, folder / "out.gguf"); }),
                 "lm_head.weight is no low-rank matrix"));
  CHECK_FALSE(std::filesystem::exists(folder / "out.gguf"));
}

TEST_CASE("gguf: alpha / rank · B A is each layer's update, q and k in llama.cpp's order") {
  const TemporaryFolder folder;
  LoraConfig config = patterned();
  config.target_modules.push_back("embed_tokens");
  config.target_modules.push_back("lm_head");
  const PeftModel model(tiny_model(), config);
  export_gguf_adapter(model, folder / "adapter.gguf");
  const GgufFileContent file(read_file(folder / "adapter.gguf"));
  CHECK(file.texts == std::map<std::string, std::string>{{"general.type", "adapter"},
                                                         {"general.architecture", "llama"},
                                                         {"adapter.type", "lora"}});
  const double alpha = file.numbers.at("adapter.lora.alpha");
  CHECK(alpha == 12);  // 6 · √4
  const auto update = [&](const std::string& name) {
    const torch::Tensor& a = file.tensors.at(name + ".weight.lora_a");
    const torch::Tensor& b = file.tensors.at(name + ".weight.lora_b");
    return b.mm(a) * (alpha / static_cast<double>(a.size(0)));
  };
  std::map<std::string, torch::Tensor> want;
  for (const auto& layer : model.adapted_layers()) {
    want[layer.path] = layer.adapter->delta_weight().detach();
  }
  CHECK(torch::allclose(update("blk.1.ffn_down"), want["model.layers.1.mlp.down_proj"]));
  CHECK(torch::allclose(update("output"), want["lm_head"]));
  // Row 2i of a head is row i of its first half, row 2i + 1 that of its second.
  const torch::Tensor k = want["model.layers.0.self_attn.k_proj"];
  const torch::Tensor got = update("blk.0.attn_k");
  for (std::int64_t head = 0; head < 2; ++head) {
    for (std::int64_t i = 0; i < 5; ++i) {
      CHECK(torch::allclose(got[head * 10 + 2 * i], k[head * 10 + i]));
      CHECK(torch::allclose(got[head * 10 + 2 * i + 1], k[head * 10 + 5 + i]));
    }
  }
  const torch::Tensor a = file.tensors.at("token_embd.weight.lora_a");
  CHECK(a.sizes() == torch::IntArrayRef({61, 4}));
  CHECK(torch::allclose(a.mm(file.tensors.at("token_embd.weight.lora_b").t()) * (alpha / 4),
                        model.adapted_embeddings()[0].adapter->delta_table().detach()));
}

TEST_CASE("gguf: a tied head and an unknown kind of base are refused") {
  const TemporaryFolder folder;
  ModelConfig config = tiny_config();
  config.tie_word_embeddings = true;
  const PeftModel model(tiny_model(7, config), LoraConfig{.target_modules = {"lm_head"}});
  CHECK(contains(error_of([&] { export_gguf_adapter(model, folder / "adapter.gguf"); }),
                 "lm_head is tied to the embedding"));
}

TEST_SUITE_END();
