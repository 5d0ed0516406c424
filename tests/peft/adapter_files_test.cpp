#include "peft/tiny_lora.hpp"
#include "support/error_of.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <doctest/doctest.h>
#include <torch/types.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <string>

using namespace lorapp;
using namespace lorapp::test;

namespace {

constexpr const char* kFile = "adapter_model.safetensors";
const std::string kFirst = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

NamedTensors read_all(const std::filesystem::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  NamedTensors tensors;
  for (const std::string& name : file.names()) tensors.emplace_back(name, file.view(name).clone());
  return tensors;
}

torch::Tensor& tensor_of(NamedTensors& tensors, const std::string& name) {
  return std::find_if(tensors.begin(), tensors.end(),
                      [&](auto& entry) { return entry.first == name; })
      ->second;
}

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("adapter files: names, types and metadata are PEFT's") {
  const TemporaryFolder folder;
  const PeftModel model(tiny_model(), random_lora());
  model.save_pretrained(folder / "new/adapter");
  const SafetensorsFile file = SafetensorsFile::open(folder / "new/adapter" / kFile);
  CHECK(file.metadata() == std::map<std::string, std::string>{{"format", "pt"}});
  CHECK(file.names().size() == 8);
  CHECK(file.info(kFirst).dtype == "F32");
  CHECK(file.info(kFirst).shape == std::vector<std::int64_t>{3, 40});
  CHECK(file.info("base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight").shape ==
        std::vector<std::int64_t>{20, 3});
  const std::string card = read_file(folder / "new/adapter/README.md");
  CHECK(card.starts_with("---\n"));
  CHECK(contains(card, "| r | 3 |"));
}

TEST_CASE("adapter files: a saved adapter loads into a fresh base with the same logits and bits") {
  const TemporaryFolder folder;
  LoraConfig config = random_lora({"all-linear"});
  config.rank_pattern = {{"k_proj", 2}};
  config.alpha_pattern = {{"up_proj", 5}};
  config.use_rslora = true;
  PeftModel model(tiny_model(), config);
  model.eval();
  model.save_pretrained(folder.path());
  PeftModel loaded = PeftModel::from_pretrained(tiny_model(), folder.path());
  CHECK(logits(loaded).equal(logits(model)));
  CHECK_FALSE(loaded.is_training());
  CHECK(loaded.trainable_parameters().trainable == 0);
  CHECK(loaded.peft_config().inference_mode);
  const PeftModel trainable = PeftModel::from_pretrained(tiny_model(), folder.path(), true);
  CHECK(trainable.trainable_parameters().trainable == model.trainable_parameters().trainable);
  loaded.save_pretrained(folder / "again");
  for (const char* name : {kFile, "adapter_config.json"}) {
    CHECK(read_file(folder / name) == read_file(folder / "again" / name));
  }
}

TEST_CASE("adapter files: trained biases are saved and loaded") {
  const TemporaryFolder folder;
  ModelConfig base_config = tiny_config();
  base_config.model_type = "llama";
  base_config.architectures = {"LlamaForCausalLM"};
  base_config.attention_bias = true;
  LoraConfig config = random_lora();
  config.bias = "all";
  PeftModel model(tiny_model(7, base_config), config);
  model.eval();
  {
    const torch::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model.adapter_state()) torch::Tensor(tensor).add_(0.125);
  }
  model.save_pretrained(folder.path());
  PeftModel loaded = PeftModel::from_pretrained(tiny_model(7, base_config), folder.path());
  CHECK(logits(loaded).equal(logits(model)));
}

TEST_CASE("adapter files: half-precision files are widened") {
  const TemporaryFolder folder;
  PeftModel model(tiny_model(), random_lora());
  model.save_pretrained(folder.path());
  NamedTensors tensors = read_all(folder / kFile);
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.to(contains(name, "lora_A") ? torch::kFloat16 : torch::kBFloat16);
  }
  write_safetensors(folder / kFile, tensors);
  const PeftModel loaded = PeftModel::from_pretrained(tiny_model(), folder.path());
  const torch::Tensor a = loaded.adapted_layers()[0].adapter->a();
  CHECK((a.scalar_type() == torch::kFloat32));
  CHECK(a.equal(tensor_of(tensors, kFirst).to(torch::kFloat32)));
}

TEST_CASE("adapter files: every missing, unexpected and mis-shaped tensor is in one message") {
  const TemporaryFolder folder;
  const PeftModel model(tiny_model(), random_lora());
  model.save_pretrained(folder.path());
  NamedTensors tensors = read_all(folder / kFile);
  tensors[0].first += "s";  // sorted by name: layers.0…q_proj.lora_A.weight
  tensors.emplace_back("something.else.entirely", torch::zeros({1}));
  tensor_of(tensors, "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight") =
      torch::zeros({40, 4});
  tensor_of(tensors, "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight") =
      torch::zeros({20, 3}, torch::kInt64);
  write_safetensors(folder / kFile, tensors);
  const auto base = tiny_model();
  const std::string message = error_of([&] { PeftModel::from_pretrained(base, folder.path()); });
  for (const char* part :
       {"missing base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight "
        "[3, 40]; nearest is "
        "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weights",
        "unexpected something.else.entirely",
        "layers.1.self_attn.q_proj.lora_B.weight has the shape [40, 4]; expected "
        "[40, 3]",
        "layers.1.self_attn.v_proj.lora_B.weight has the type I64"}) {
    CHECK_MESSAGE(contains(message, part), part, " in ", message);
  }
  // The base is as it was, and usable.
  for (const auto& parameter : base->parameters()) CHECK(parameter.requires_grad());
  CHECK_NOTHROW(PeftModel(base, random_lora()));
}

TEST_CASE("adapter files: a disk that fills up leaves the adapter that was there") {
  const TemporaryFolder folder;
  PeftModel(tiny_model(), random_lora({"q_proj"})).save_pretrained(folder.path());
  const auto contents = [&] {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
      files[entry.path().filename().string()] =
          entry.is_regular_file() ? read_file(entry.path()) : "not a file";
    }
    return files;
  };
  const auto before = contents();
  CHECK(before.size() == 3);
  LoraConfig config = random_lora({"q_proj"});
  config.unknown_keys = {{"note", "\"" + std::string(20'000, 'x') + "\""}};
  const PeftModel model(tiny_model(), config, 99);
  std::string message;
  {
    const FileSizeLimit limit(10'000);  // enough for the weights, too little for the configuration
    message = error_of([&] { model.save_pretrained(folder.path()); });
  }
  CHECK(contains(message, "adapter_config.json"));
  CHECK(contents() == before);
  model.save_pretrained(folder.path());
  CHECK(contents().size() == 3);
  CHECK(contains(contents().at("adapter_config.json"), "xxx"));
}

TEST_CASE("adapter files: weights that were trained with another scale are refused") {
  const TemporaryFolder folder;
  PeftModel(tiny_model(), random_lora()).save_pretrained(folder.path());
  LoraConfig config = random_lora();
  config.alpha_pattern = {{"v_proj", 5}};
  PeftModel model(tiny_model(), config, 99);
  const torch::Tensor before = logits(model);
  const std::string message = error_of([&] { model.load_adapter_weights(folder.path()); });
  CHECK(contains(message, "2 problems"));
  CHECK(contains(message, "layers.1.self_attn.v_proj was trained with the scale"));
  CHECK(logits(model).equal(before));
  std::filesystem::remove(folder / "adapter_config.json");
  CHECK_NOTHROW(model.load_adapter_weights(folder.path()));
}

TEST_CASE("adapter files: an adapter for more layers than the base has is an error") {
  const TemporaryFolder folder;
  const PeftModel model(tiny_model(), random_lora());
  model.save_pretrained(folder.path());
  ModelConfig shorter = tiny_config();
  shorter.num_hidden_layers = 1;
  CHECK(
      contains(error_of([&] { PeftModel::from_pretrained(tiny_model(7, shorter), folder.path()); }),
               "unexpected base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"));
}

TEST_CASE("adapter files: a folder without weights, or with a pickle only, says so") {
  const TemporaryFolder folder;
  random_lora().save(folder / "adapter_config.json");
  const auto load = [&] { PeftModel::from_pretrained(tiny_model(), folder.path()); };
  CHECK(contains(error_of(load), kFile));
  folder.write("adapter_model.bin", "x");
  CHECK(contains(error_of(load), "pickle"));
  CHECK(contains(error_of([&] { PeftModel::from_pretrained(tiny_model(), folder / "absent"); }),
                 "adapter_config.json"));
}

TEST_SUITE_END();
