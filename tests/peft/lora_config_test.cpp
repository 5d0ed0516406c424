#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/lora_config.hpp>
#include <lorapp/peft/module_pattern.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

using namespace lorapp;
using lorapp::test::contains;
using lorapp::test::error_of;
using lorapp::test::read_file;
using lorapp::test::TemporaryFolder;

namespace {

LoraConfig read(const TemporaryFolder& folder, const std::string& json) {
  return LoraConfig::from_file(folder.write("adapter_config.json", json));
}

const std::vector<std::string> kPaths = {"model.layers.0.self_attn.q_proj",
                                         "model.layers.0.self_attn.v_proj",
                                         "model.layers.0.mlp.up_proj",
                                         "model.layers.1.self_attn.q_proj",
                                         "model.layers.1.self_attn.v_proj",
                                         "model.layers.10.self_attn.q_proj",
                                         "lm_head"};
const std::vector<std::size_t> kHead = {6};

std::vector<std::size_t> matched(const LoraConfig& config) {
  return match_targets(config, kPaths, kHead).indices;
}

using Indices = std::vector<std::size_t>;

}  // namespace

TEST_SUITE_BEGIN("peft");

TEST_CASE("lora_config: the struct's defaults are the recipe's, a file's are PEFT's") {
  const LoraConfig recipe;
  CHECK(recipe.r == 16);
  CHECK(recipe.lora_alpha == 32);
  CHECK(recipe.lora_dropout == 0.05);
  CHECK(recipe.scaling_of("model.layers.0.self_attn.q_proj") == 2);
  const TemporaryFolder folder;
  const LoraConfig file = read(folder, R"({"peft_type": "LORA"})");
  CHECK(file.r == 8);
  CHECK(file.lora_alpha == 8);
  CHECK(file.lora_dropout == 0);
  CHECK(file.task_type == "");
  CHECK(file.target_modules == std::vector<std::string>{"q_proj", "v_proj"});
}

TEST_CASE(
    "lora_config: what is saved reads back as the same configuration, unknown keys included") {
  const TemporaryFolder folder;
  LoraConfig config = read(folder,
                           R"({"peft_type": "LORA", "r": 4, "lora_alpha": 7.5, "bias": "all",
    "target_modules": ["v_proj", "q_proj"], "rank_pattern": {"up_proj": 2}, "init_lora_weights": "gaussian",
    "alpha_pattern": {"layers.1.self_attn.q_proj": 3}, "use_rslora": true, "layers_to_transform": 1,
    "exclude_modules": "model\\.layers\\.0\\..*", "nvfp4_merge_aware": {"b": [1, 2.5], "a": null},
    "modules_to_save": null, "use_dora": false, "peft_version": "0.21.2", "base_model_name_or_path": "a/b"})");
  CHECK(config.layers_to_transform == std::vector<std::int64_t>{1});
  CHECK(config.unknown_keys.at("nvfp4_merge_aware") == R"({"a": null, "b": [1, 2.5]})");
  config.save(folder / "again.json");
  LoraConfig again = LoraConfig::from_file(folder / "again.json");
  CHECK(again.inference_mode);
  again.inference_mode = false;
  config.target_modules = {"q_proj", "v_proj"};  // written sorted
  CHECK(again == config);
}

TEST_CASE(
    "lora_config: the file has sorted keys, two spaces, sorted targets and inference_mode true") {
  const TemporaryFolder folder;
  LoraConfig config;
  config.target_modules = {"v_proj", "q_proj"};
  config.save(folder / "adapter_config.json");
  CHECK(read_file(folder / "adapter_config.json") == R"({
  "alpha_pattern": {},
  "base_model_name_or_path": null,
  "bias": "none",
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "layers_pattern": null,
  "layers_to_transform": null,
  "lora_alpha": 32,
  "lora_dropout": 0.05,
  "peft_type": "LORA",
  "r": 16,
  "rank_pattern": {},
  "target_modules": [
    "q_proj",
    "v_proj"
  ],
  "task_type": "CAUSAL_LM",
  "use_rslora": false
}
)");
}

TEST_CASE("lora_config: one error names every wrong value") {
  LoraConfig config;
  config.r = 0;
  config.lora_alpha = std::numeric_limits<double>::quiet_NaN();
  config.lora_dropout = 1;
  config.bias = "some";
  config.task_type = "SEQ_CLS";
  config.target_modules = {};
  config.rank_pattern = {{"up_proj", -1}, {"(", 2}};
  config.layers_pattern = {"layers"};
  config.fan_in_fan_out = true;
  const std::string message = error_of([&] { config.validate(); });
  for (const char* part : {"r is 0", "lora_alpha is nan", "lora_dropout is 1", "bias is \"some\"",
                           "SEQ_CLS", "target_modules is empty", "rank_pattern[\"up_proj\"] is -1",
                           "\"(\" is not valid", "layers_pattern is set", "fan_in_fan_out"}) {
    CHECK_MESSAGE(contains(message, part), part, " in ", message);
  }
}

TEST_CASE(
    "lora_config: a key that changes the result and is not supported is named, unset it passes") {
  const TemporaryFolder folder;
  const std::string message = error_of([&] {
    read(folder, R"({"peft_type": "LORA", "use_dora": true, "use_qalora": true,
      "ensure_weight_tying": true, "target_parameters": [], "lora_bias": false, "init_lora_weights": "pissa"})");
  });
  CHECK(contains(message, "use_dora is"));
  CHECK(contains(message, "DoRA is not supported"));
  CHECK(contains(message, "use_qalora is"));
  CHECK(contains(message, "ensure_weight_tying is"));
  CHECK(contains(message, "init_lora_weights is"));
  CHECK_FALSE(contains(message, "lora_bias"));
  CHECK_FALSE(contains(message, "target_parameters"));
  CHECK(contains(error_of([&] { read(folder, R"({"peft_type": "IA3"})"); }), "IA3"));
  CHECK(contains(error_of([&] { read(folder, R"({"r": 4})"); }), "peft_type"));
  CHECK(
      contains(error_of([&] { read(folder, R"({"peft_type": "LORA", "r": 0.5})"); }), "r is 0.5"));
  CHECK(contains(error_of([&] { read(folder, "{"); }), "adapter_config.json"));
  // What a field may be and what fields may be together: one list.
  const std::string fields = error_of([&] {
    read(folder, R"({"peft_type": "LORA", "r": 0, "lora_dropout": 1.5, "bias": "some"})");
  });
  CHECK(contains(fields, "adapter_config.json: 3 problems"));
  for (const char* part : {"r is 0", "lora_dropout is 1.5", "bias is \"some\""}) {
    CHECK_MESSAGE(contains(fields, part), part, " in ", fields);
  }
}

TEST_CASE("targets: a name matches a whole path or the end of one behind a dot, nothing else") {
  LoraConfig config;
  config.target_modules = {"q_proj"};
  CHECK(matched(config) == Indices{0, 3, 5});
  config.target_modules = {"proj"};
  CHECK(matched(config).empty());
  config.target_modules = {"0.self_attn.q_proj"};
  CHECK(matched(config) == Indices{0});  // not layers.10
  config.target_modules = {"lm_head", "model.layers.0.mlp.up_proj"};
  CHECK(matched(config) == Indices{2, 6});
  config.target_modules = {"q_proj", "k_proj"};
  CHECK(match_targets(config, kPaths, kHead).unmatched == std::vector<std::string>{"k_proj"});
}

TEST_CASE("targets: a regular expression matches whole paths, all-linear all but the head") {
  LoraConfig config;
  config.target_modules = {};
  config.target_modules_regex = R"(.*\.[01]\.self_attn\.(q|v)_proj)";
  CHECK(matched(config) == Indices{0, 1, 3, 4});
  config.target_modules_regex = "q_proj";
  CHECK(matched(config).empty());
  config.target_modules_regex.reset();
  config.target_modules = {"All-Linear"};
  CHECK(matched(config) == Indices{0, 1, 2, 3, 4, 5});
}

TEST_CASE("targets: exclusion comes first, layer numbers narrow the ends of paths only") {
  LoraConfig config;
  config.exclude_modules = {"layers.0.self_attn.q_proj"};
  CHECK(matched(config) == Indices{1, 3, 4, 5});
  config.exclude_modules = {};
  config.exclude_modules_regex = ".*layers\\.1.*";
  CHECK(matched(config) == Indices{0, 1});
  config.exclude_modules_regex.reset();
  config.layers_to_transform = {10, 1};
  CHECK(matched(config) == Indices{3, 4, 5});
  config.layers_pattern = {"blocks"};
  CHECK(matched(config).empty());
  config.layers_pattern = {"blocks", "layers"};
  CHECK(matched(config) == Indices{3, 4, 5});
  config.target_modules = {"q_proj", "model.layers.0.mlp.up_proj"};
  CHECK(matched(config) == Indices{2, 3, 5});
}

TEST_CASE("targets: the layer number is the first numbered part between two others") {
  CHECK(layer_index("model.layers.3.self_attn.q_proj") == 3);
  CHECK(layer_index("model.layers.1.experts.0.w1") == 1);
  CHECK(layer_index("model.layers.1.experts.0.w1", {"experts"}) == 0);
  CHECK_FALSE(layer_index("h.2.attn").has_value());  // as PEFT: a part before the container too
  CHECK_FALSE(layer_index("lm_head").has_value());
  CHECK_FALSE(layer_index("model.layers.3").has_value());
}

TEST_CASE("patterns: rank and alpha come from the first key that matches the end of the path") {
  LoraConfig config;
  config.r = 8;
  config.lora_alpha = 16;
  config.rank_pattern = {{"q_proj", 4}, {R"(layers\.0\..*)", 2}};
  config.alpha_pattern = {{"v_proj", 1}};
  CHECK(config.rank_of(kPaths[0]) == 2);  // "layers…" sorts before "q_proj"
  CHECK(config.rank_of(kPaths[3]) == 4);
  CHECK(config.rank_of(kPaths[4]) == 8);
  CHECK(config.scaling_of(kPaths[3]) == 4);
  CHECK(config.scaling_of(kPaths[4]) == 0.125);
  config.use_rslora = true;
  CHECK(config.scaling_of(kPaths[3]) == doctest::Approx(8));
}

TEST_CASE("regular expressions: what Python reads differently is refused") {
  for (const char* expression : {"(?P<n>a)", "(?<=a)b", "(?i)a", "a\\Z", "\\Aa", "a++",
                                 "[[:alpha:]]", "[]a]", "a{,2}", "("}) {
    CHECK_THROWS_AS(ModulePattern{expression}, Error);
  }
  CHECK(ModulePattern(R"((?:a|ab)(?=c)c\d{2})").matches("abc12"));
  CHECK_FALSE(ModulePattern("a|b").matches("ab"));
}

TEST_SUITE_END();
