// lorapp inspect: what a model folder, an adapter folder or a safetensors file holds.
#include "adapter.hpp"
#include "command.hpp"
#include "console.hpp"
#include "hub.hpp"
#include "options.hpp"

#include <lorapp/error.hpp>
#include <lorapp/io/checkpoint.hpp>
#include <lorapp/io/dtype.hpp>
#include <lorapp/io/safetensors.hpp>
#include <lorapp/nn/model_config.hpp>
#include <lorapp/peft/count.hpp>
#include <lorapp/peft/lora_config.hpp>

#include <CLI/CLI.hpp>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>

namespace lorapp::program {

namespace {

namespace fs = std::filesystem;

struct Options {
  CommonOptions common{};
  std::string path{};
  LoraOptions lora{};

  void add_to(CLI::App& app) {
    app.add_option("path,--model", path,
                   "A model folder, an adapter folder, a safetensors file, or the id of a "
                   "model on the hub")
        ->required();
    lora.add_to(app);
    app.footer("The LoRA options say which adapter the parameters of a model are counted for.");
    common.add_to(app);
  }
};

std::int64_t elements(const TensorInfo& tensor) {
  std::int64_t count = 1;
  for (const std::int64_t size : tensor.shape) count *= size;
  return count;
}

/// Number, bytes and dtypes of tensors, from the files' headers alone.
Json summary(const Checkpoint& checkpoint) {
  std::uint64_t bytes = 0;
  std::int64_t count = 0;
  std::map<std::string, std::int64_t> dtypes;
  for (const std::string& name : checkpoint.names()) {
    const TensorInfo& tensor = checkpoint.info(name);
    bytes += tensor.nbytes();
    count += elements(tensor);
    ++dtypes[tensor.dtype];
  }
  Json files = Json::array();
  for (const fs::path& file : checkpoint.files()) files.push_back(file.filename().string());
  return {{"files", files},
          {"tensors", checkpoint.names().size()},
          {"elements", count},
          {"bytes", bytes},
          {"dtypes", dtypes}};
}

Json inspect_file(const fs::path& path) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  Json result = {{"kind", "safetensors"}, {"path", path.string()}, {"metadata", file.metadata()}};
  result.update(summary(Checkpoint::open(path)));
  Json list = Json::array();
  for (const std::string& name : file.names()) {
    const TensorInfo& tensor = file.info(name);
    list.push_back({{"name", name},
                    {"dtype", tensor.dtype},
                    {"shape", tensor.shape},
                    {"bytes", tensor.nbytes()}});
  }
  result["contents"] = list;
  return result;
}

/// The rest of an adapter's configuration, as far as it is set.
void add_rare_fields(Json& result, const LoraConfig& config) {
  const auto add = [&](const char* key, const auto& value) {
    if (!value.empty()) result[key] = value;
  };
  add("rank_pattern", config.rank_pattern);
  add("alpha_pattern", config.alpha_pattern);
  add("exclude_modules", config.exclude_modules);
  add("layers_to_transform", config.layers_to_transform);
  add("layers_pattern", config.layers_pattern);
  add("modules_to_save", config.modules_to_save);
  add("trainable_token_indices", config.trainable_token_indices);
  if (config.exclude_modules_regex) result["exclude_modules"] = *config.exclude_modules_regex;
  if (config.lora_bias) result["lora_bias"] = true;
}

Json inspect_adapter(const fs::path& folder) {
  const LoraConfig config = LoraConfig::from_file(folder / "adapter_config.json");
  Json result = {{"kind", "adapter"},
                 {"path", folder.string()},
                 {"base_model_name_or_path", config.base_model_name_or_path},
                 {"r", config.r},
                 {"lora_alpha", config.lora_alpha},
                 {"lora_dropout", config.lora_dropout},
                 {"use_rslora", config.use_rslora},
                 {"bias", config.bias}};
  if (config.target_modules_regex) {
    result["target_modules"] = *config.target_modules_regex;
  } else {
    result["target_modules"] = config.target_modules;
  }
  add_rare_fields(result, config);
  result["weights"] = summary(Checkpoint::open(folder / "adapter_model.safetensors"));
  result["parameters"] = result["weights"]["elements"];
  return result;
}

Json quantization(const ModelConfig& config) {
  if (!config.quantization_config) return nullptr;
  const QuantConfig& quant = *config.quantization_config;
  Json result = {{"quant_type", quant_type_name(quant.quant_type)},
                 {"double_quant", quant.use_double_quant}};
  result["compute_dtype"] =
      quant.compute_dtype ? Json(hf_dtype_name(*quant.compute_dtype)) : "auto";
  return result;
}

Json inspect_model(const fs::path& folder, const LoraConfig& lora, const Console& console) {
  const ModelConfig config = ModelConfig::from_pretrained(folder);
  const std::int64_t parameters = count_parameters(config);
  const std::int64_t trainable = count_lora_parameters(config, lora);
  LORAPP_CHECK(trainable > 0, "inspect", "--target-modules ", Json(lora.target_modules).dump(),
               " match no linear layer of ", folder.string());
  Json result = {{"kind", "model"},
                 {"path", folder.string()},
                 {"model_type", config.model_type},
                 {"parameters", parameters},
                 {"num_hidden_layers", config.num_hidden_layers},
                 {"hidden_size", config.hidden_size},
                 {"intermediate_size", config.intermediate_size},
                 {"num_attention_heads", config.num_attention_heads},
                 {"num_key_value_heads", config.num_key_value_heads},
                 {"head_dim", config.head_size()},
                 {"vocab_size", config.vocab_size},
                 {"max_position_embeddings", config.max_position_embeddings},
                 {"rope_type", rope_type_name(config.rope_scaling.type)},
                 {"rope_theta", config.rope_theta},
                 {"tie_word_embeddings", config.tie_word_embeddings}};
  result["sliding_window"] = config.sliding_window ? Json(*config.sliding_window) : Json();
  result["dtype"] = config.dtype ? Json(hf_dtype_name(*config.dtype)) : Json();
  result["quantization"] = quantization(config);
  result["lora"] = {{"r", lora.r},
                    {"target_modules", lora.target_modules},
                    {"trainable_params", trainable},
                    {"all_params", parameters + trainable}};
  try {
    result["weights"] = summary(Checkpoint::open(folder));
  } catch (const Error& error) {  // the configuration is worth showing without them
    console.note(std::string("the weights cannot be read: ") + error.what());
    result["weights"] = nullptr;
  }
  return result;
}

int run(const Options& options) {
  options.common.apply();
  const Console console(options.common.json, options.common.quiet);
  std::error_code error;
  if (fs::is_regular_file(options.path, error)) {
    console.result(inspect_file(options.path));
    return kDone;
  }
  const fs::path folder = model_folder(options.path,
                                       {.any_of = {"config.json", "adapter_config.json"},
                                        .weights = false,
                                        .patterns = {"*config.json", "adapter_model.safetensors"}},
                                       options.common.quiet);
  const bool is_adapter = fs::exists(folder / "adapter_config.json");
  LORAPP_CHECK(is_adapter || fs::exists(folder / "config.json"), "inspect", folder.string(),
               ": has neither config.json (a model) nor adapter_config.json (an adapter)");
  console.result(is_adapter ? inspect_adapter(folder)
                            : inspect_model(folder, options.lora.new_adapter(), console));
  return kDone;
}

}  // namespace

Command inspect_command() {
  return {"inspect", "What a model, an adapter or a safetensors file holds", [](CLI::App& app) {
            const auto options = std::make_shared<Options>();
            options->add_to(app);
            return [options] { return run(*options); };
          }};
}

}  // namespace lorapp::program
