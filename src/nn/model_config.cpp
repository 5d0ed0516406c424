// Reading, checking and writing config.json.
#include <lorapp/nn/model_config.hpp>

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>

#include "nn/architectures.hpp"

#include <algorithm>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

using detail::Architecture;
using nlohmann::json;

constexpr std::string_view kOp = detail::kConfigOp;

// The architecture of a file; null, with a problem added, where lorapp has it not.
const Architecture* find_architecture(const json& file, Problems& problems) {
  const auto names = detail::find_strings(file, "architectures", problems);
  const auto type = detail::find_string(file, "model_type", problems);
  if (!names && !type) {
    if (problems.empty()) {
      problems.add("neither architectures nor model_type is given; supported: ",
                   detail::supported_architectures());
    }
    return nullptr;
  }
  if (names) {
    for (const std::string& name : *names) {
      const Architecture* architecture = detail::architecture_of_name(name);
      if (architecture == nullptr) continue;
      if (!type || *type == architecture->model_type) return architecture;
      problems.add("architectures says ", name, ", but model_type says \"", *type, "\"");
      return nullptr;
    }
    std::string found;
    for (const std::string& name : *names) found += (found.empty() ? "" : ", ") + name;
    problems.add("the architecture ", found.empty() ? "[]" : found,
                 " is not supported; supported: ", detail::supported_architectures());
    return nullptr;
  }
  const Architecture* architecture = detail::architecture_of_type(*type);
  if (architecture == nullptr) {
    problems.add("the model_type \"", *type,
                 "\" is not supported; supported: ", detail::supported_model_types());
  }
  return architecture;
}

std::optional<c10::ScalarType> read_dtype(const json& object,
                                          const detail::Keys& keys,
                                          Problems& problems) {
  const auto name = detail::find_string(object, keys, problems);
  if (!name || *name == "auto") return std::nullopt;
  try {
    const c10::ScalarType dtype = parse_hf_dtype(*name);
    if (dtype == c10::kFloat || dtype == c10::kBFloat16 || dtype == c10::kHalf) return dtype;
    problems.add(keys.text(), " is \"", *name, "\"; expected float32, bfloat16 or float16");
  } catch (const Error& error) {
    problems.add(keys.text(), ": ", error.what());
  }
  return std::nullopt;
}

// The quantization of a folder whose weights are 4-bit already.
std::optional<QuantConfig> read_quantization(const json& file, Problems& problems) {
  const json* section = detail::find_object(file, "quantization_config", problems);
  if (section == nullptr) return std::nullopt;
  const std::string method =
      detail::get_string_or(*section, "quant_method", problems, "bitsandbytes");
  if (method != "bitsandbytes") {
    problems.add("quantization_config: the quant_method \"", method,
                 "\" is not supported; supported: bitsandbytes (4-bit)");
    return std::nullopt;
  }
  if (!detail::get_bool_or(*section, {"load_in_4bit", "_load_in_4bit"}, problems, false)) {
    problems.add("quantization_config: only 4-bit weights (load_in_4bit) are supported");
    return std::nullopt;
  }
  QuantConfig quant;
  try {
    quant.quant_type =
        parse_quant_type(detail::get_string_or(*section, "bnb_4bit_quant_type", problems, "fp4"));
  } catch (const Error& error) {
    problems.add("quantization_config: ", error.what());
  }
  quant.use_double_quant =
      detail::get_bool_or(*section, "bnb_4bit_use_double_quant", problems, false);
  quant.compute_dtype = read_dtype(*section, "bnb_4bit_compute_dtype", problems);
  if (auto skip = detail::find_strings(*section, "llm_int8_skip_modules", problems)) {
    quant.skip_modules = std::move(*skip);
  }
  return quant;
}

// transformers ignores layer_types for Llama and Mistral, so what the list says must be what they
// do.
void check_layer_types(const std::vector<std::string>& types,
                       const ModelConfig& config,
                       Problems& problems) {
  const std::string expected = config.sliding_window ? detail::kSliding : detail::kFull;
  for (const std::string& type : types) {
    if (type == expected) continue;
    problems.add("layer_types has \"", type, "\"; every layer of this ", config.model_type,
                 " model has ", expected);
    return;
  }
}

// Which layers of a Qwen model have the window: layer_types says it, or else max_window_layers,
// the first of them.
void read_layer_windows(const json& file,
                        std::optional<std::vector<std::string>> types,
                        ModelConfig& config,
                        Problems& problems) {
  if (!detail::get_bool_or(file, "use_sliding_window", problems, false)) {
    config.sliding_window.reset();
  }
  const std::int64_t first = detail::get_int_or(
      file, "max_window_layers", problems, detail::kDefaultWindowLayers, 0, detail::kMaxLayers);
  if (types) {
    config.layer_types = std::move(*types);
  } else if (config.sliding_window) {
    for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
      config.layer_types.emplace_back(i >= first ? detail::kSliding : detail::kFull);
    }
  }
  const auto all_full = [&] {
    return std::all_of(config.layer_types.begin(), config.layer_types.end(),
                       [](const std::string& type) { return type == detail::kFull; });
  };
  const auto layers = static_cast<std::int64_t>(config.layer_types.size());
  if (layers == config.num_hidden_layers && all_full()) {
    config.layer_types.clear();
    config.sliding_window.reset();
  }
}

void read_windows(const json& file,
                  const Architecture& architecture,
                  ModelConfig& config,
                  Problems& problems) {
  auto types = detail::find_strings(file, "layer_types", problems);
  if (architecture.windows != detail::Windows::none) {
    config.sliding_window =
        file.contains("sliding_window")
            ? detail::find_int(file, "sliding_window", problems, 1, detail::kMaxPositions)
            : detail::kDefaultWindow;
  }
  if (architecture.windows == detail::Windows::by_layer) {
    read_layer_windows(file, std::move(types), config, problems);
  } else if (types) {
    check_layer_types(*types, config, problems);
  }
}

// Replaces the ids that the file names: null is a value (none), absent is not.
void read_token_ids(const json& file, ModelConfig& config, Problems& problems) {
  if (file.contains("bos_token_id")) {
    config.bos_token_id = detail::find_int(file, "bos_token_id", problems, 0, detail::kMaxTokenId);
  }
  if (file.contains("eos_token_id")) {
    config.eos_token_id = detail::find_ints(file, "eos_token_id", problems, 0, detail::kMaxTokenId)
                              .value_or(std::vector<std::int64_t>{});
  }
  if (file.contains("pad_token_id")) {
    config.pad_token_id = detail::find_int(file, "pad_token_id", problems, -1, detail::kMaxTokenId);
    // What the first Llama folders write for none.
    if (config.pad_token_id == -1) config.pad_token_id.reset();
  }
}

void refuse_unless_zero(const json& file, const char* key, Problems& problems) {
  const double value = detail::get_double_or(file, key, problems, 0.0);
  if (value != 0.0) problems.add(key, " is ", value, "; only 0 is supported");
}

// Both ways that Qwen's files have: the list, and the number of full layers before the others.
void write_layer_windows(const ModelConfig& config, json& file) {
  json types = json::array();
  std::int64_t full = 0;
  for (std::int64_t i = 0; i < config.num_hidden_layers; ++i) {
    const bool slides = config.window(static_cast<std::size_t>(i)).has_value();
    if (!slides && full == i) ++full;
    types.push_back(slides ? detail::kSliding : detail::kFull);
  }
  file["use_sliding_window"] = config.sliding_window.has_value();
  file["max_window_layers"] = full;
  file["layer_types"] = types;
}

}  // namespace

ModelConfig ModelConfig::from_file(const std::filesystem::path& path) {
  const json file = detail::read_json_object(path, kOp);
  Problems problems(std::string(kOp), path.string());
  const Architecture* architecture = find_architecture(file, problems);
  // The rest of an unknown model's file is not looked at: its fields may mean anything.
  problems.throw_if_any();

  ModelConfig c;
  c.model_type = architecture->model_type;
  c.architectures = {architecture->name};
  c.bos_token_id = architecture->bos_token_id;
  c.eos_token_id.clear();
  if (architecture->eos_token_id) c.eos_token_id = {*architecture->eos_token_id};
  c.vocab_size = detail::get_int(file, "vocab_size", problems, 1, detail::kMaxVocab);
  c.hidden_size = detail::get_int(file, "hidden_size", problems, 1, detail::kMaxWidth);
  c.intermediate_size = detail::get_int(file, "intermediate_size", problems, 1, detail::kMaxWidth);
  c.num_hidden_layers = detail::get_int(file, "num_hidden_layers", problems, 1, detail::kMaxLayers);
  c.num_attention_heads =
      detail::get_int(file, "num_attention_heads", problems, 1, detail::kMaxHeads);
  // A field that is null and one that is absent differ here, in transformers too.
  const bool kv_given = file.contains("num_key_value_heads");
  c.num_key_value_heads = detail::get_int_or(
      file, "num_key_value_heads", problems,
      kv_given ? c.num_attention_heads
               : architecture->num_key_value_heads.value_or(c.num_attention_heads),
      1, detail::kMaxHeads);
  c.head_dim = detail::find_int(file, "head_dim", problems, 1, detail::kMaxHeads);
  if (!c.head_dim) c.head_dim = architecture->head_dim;
  c.hidden_act = detail::get_string_or(file, "hidden_act", problems, "silu");
  c.max_position_embeddings =
      detail::get_int_or(file, "max_position_embeddings", problems,
                         architecture->max_position_embeddings, 1, detail::kMaxPositions);
  c.initializer_range = detail::get_double_or(file, "initializer_range", problems, 0.02, 0.0, 1.0);
  c.rms_norm_eps = detail::get_double_or(file, "rms_norm_eps", problems, 1e-6, 0.0, 1.0);
  detail::read_rope(file, c, problems);
  read_windows(file, *architecture, c, problems);
  c.tie_word_embeddings = detail::get_bool_or(file, "tie_word_embeddings", problems, false);
  // A Qwen2 model has its biases whatever the file says.
  if (architecture->model_type != std::string_view("qwen2")) {
    c.attention_bias = detail::get_bool_or(file, "attention_bias", problems, false);
  }
  c.mlp_bias = detail::get_bool_or(file, "mlp_bias", problems, false);
  read_token_ids(file, c, problems);
  const detail::Keys dtype_keys = {"dtype", "torch_dtype"};
  const json* dtype = dtype_keys.find(file);
  const bool is_double = dtype != nullptr && *dtype == "float64";
  c.dtype = is_double ? c10::kFloat : read_dtype(file, dtype_keys, problems);
  c.quantization_config = read_quantization(file, problems);
  refuse_unless_zero(file, "attention_dropout", problems);
  // The checks between fields would repeat what the fields themselves were found to be.
  if (problems.empty()) detail::check_config(c, problems);
  problems.throw_if_any();
  return c;
}

ModelConfig ModelConfig::from_pretrained(const std::filesystem::path& dir) {
  std::error_code ignored;
  LORAPP_CHECK(std::filesystem::is_directory(dir, ignored), kOp, dir.string(),
               ": not a folder; expected a model folder with config.json");
  ModelConfig config = from_file(dir / "config.json");
  const std::filesystem::path generation = dir / "generation_config.json";
  if (!std::filesystem::exists(generation, ignored)) return config;
  const json file = detail::read_json_object(generation, kOp);
  Problems problems(std::string(kOp), generation.string());
  read_token_ids(file, config, problems);
  problems.throw_if_any();
  return config;
}

void ModelConfig::validate(const std::string& subject) const {
  Problems problems(std::string(kOp), subject);
  detail::check_config(*this, problems);
  problems.throw_if_any();
}

void ModelConfig::save(const std::filesystem::path& path) const {
  validate(path.string());
  const auto nullable = [](const auto& value) { return value ? json(*value) : json(nullptr); };
  json file = {
      {"architectures", architectures},
      {"attention_dropout", 0.0},
      {"bos_token_id", nullable(bos_token_id)},
      {"eos_token_id", eos_token_id.size() == 1 ? json(eos_token_id.front())
                       : eos_token_id.empty()   ? json(nullptr)
                                                : json(eos_token_id)},
      {"head_dim", head_size()},
      {"hidden_act", hidden_act},
      {"hidden_size", hidden_size},
      {"initializer_range", initializer_range},
      {"intermediate_size", intermediate_size},
      {"max_position_embeddings", max_position_embeddings},
      {"model_type", model_type},
      {"num_attention_heads", num_attention_heads},
      {"num_hidden_layers", num_hidden_layers},
      {"num_key_value_heads", num_key_value_heads},
      {"pad_token_id", nullable(pad_token_id)},
      {"rms_norm_eps", rms_norm_eps},
      {"tie_word_embeddings", tie_word_embeddings},
      // The spelling of transformers 4, which 5 reads too.
      {"torch_dtype", dtype ? json(hf_dtype_name(*dtype)) : json("float32")},
      {"use_cache", true},
      {"vocab_size", vocab_size},
  };
  detail::write_rope(*this, file);
  const Architecture& architecture = *detail::architecture_of_type(model_type);
  if (architecture.has_attention_bias) file["attention_bias"] = attention_bias;
  if (architecture.has_mlp_bias) file["mlp_bias"] = mlp_bias;
  if (architecture.windows != detail::Windows::none) {
    file["sliding_window"] = nullable(sliding_window);
  }
  if (architecture.windows == detail::Windows::by_layer) write_layer_windows(*this, file);
  detail::write_json_file(path, file);
}

}  // namespace lorapp
