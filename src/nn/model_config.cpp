// Reading, checking and writing config.json.
#include <lorapp/nn/model_config.hpp>

#include <lorapp/error.hpp>
#include <lorapp/io/dtype.hpp>

#include "json_file.hpp"

#include <array>
#include <cmath>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp {

namespace {

using nlohmann::json;

constexpr std::string_view kOp = "model_config";

// What no model comes near; sizes up to here cannot overflow a product of three of them.
constexpr std::int64_t kMaxWidth = std::int64_t{1} << 20;
constexpr std::int64_t kMaxVocab = std::int64_t{1} << 24;
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxHeads = 4096;
constexpr std::int64_t kMaxPositions = std::int64_t{1} << 32;
constexpr std::int64_t kMaxTokenId = kMaxVocab;

// An architecture, and transformers' defaults for what its config.json leaves out.
struct Architecture {
  const char* name;
  const char* model_type;
  std::int64_t max_position_embeddings;
  std::optional<std::int64_t> num_key_value_heads;
  std::optional<std::int64_t> sliding_window;
  bool has_sliding_window;
  bool has_biases;
};

constexpr std::array<Architecture, 2> kArchitectures = {{
    {"LlamaForCausalLM", "llama", 2048, std::nullopt, std::nullopt, false, true},
    {"MistralForCausalLM", "mistral", 131072, 8, 4096, true, false},
}};

std::string supported_architectures() {
  std::string list;
  for (const Architecture& architecture : kArchitectures) {
    list += (list.empty() ? "" : ", ") + std::string(architecture.name);
  }
  return list;
}

const Architecture* architecture_of_type(std::string_view model_type) {
  for (const Architecture& architecture : kArchitectures) {
    if (model_type == architecture.model_type) return &architecture;
  }
  return nullptr;
}

// The architecture of a file; null, with a problem added, where lorapp has it not.
const Architecture* find_architecture(const json& file, Problems& problems) {
  const auto names = detail::find_strings(file, "architectures", problems);
  const auto type = detail::find_string(file, "model_type", problems);
  if (!names && !type) {
    if (problems.empty()) {
      problems.add("neither architectures nor model_type is given; supported: ",
                   supported_architectures());
    }
    return nullptr;
  }
  if (names) {
    for (const Architecture& architecture : kArchitectures) {
      for (const std::string& name : *names) {
        if (name != architecture.name) continue;
        if (!type || *type == architecture.model_type) return &architecture;
        problems.add("architectures says ", name, ", but model_type says \"", *type, "\"");
        return nullptr;
      }
    }
    std::string found;
    for (const std::string& name : *names) found += (found.empty() ? "" : ", ") + name;
    problems.add("the architecture ", found.empty() ? "[]" : found,
                 " is not supported; supported: ", supported_architectures());
    return nullptr;
  }
  const Architecture* architecture = architecture_of_type(*type);
  if (architecture == nullptr) {
    problems.add("the model_type \"", *type, "\" is not supported; supported: llama, mistral");
  }
  return architecture;
}

// rope_theta at the top and rope_scaling {type, …} (transformers 4), or rope_parameters {rope_type,
// rope_theta, …} (5).
double read_rope(const json& file, Problems& problems) {
  double theta = detail::get_double_or(file, "rope_theta", problems, 10000.0, 1.0, 1e12);
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    const json* rope = detail::find_object(file, key, problems);
    if (rope == nullptr) continue;
    for (const auto& [name, value] : rope->items()) {
      if (!value.is_object()) continue;
      problems.add(key, ": \"", name,
                   "\" is an object; parameters that differ from layer to layer ",
                   "are not supported");
    }
    const std::string type =
        detail::get_string_or(*rope, {"rope_type", "type"}, problems, "default");
    if (type != "default") {
      problems.add(key, ": the rope_type \"", type, "\" is not supported; supported: default");
    }
    theta = detail::get_double_or(*rope, "rope_theta", problems, theta, 1.0, 1e12);
    if (detail::get_double_or(*rope, "partial_rotary_factor", problems, 1.0) != 1.0) {
      problems.add(key, ": partial_rotary_factor must be 1");
    }
  }
  if (detail::get_double_or(file, "partial_rotary_factor", problems, 1.0) != 1.0) {
    problems.add("partial_rotary_factor must be 1");
  }
  return theta;
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

// transformers ignores layer_types for these two models, so what the list says must be what they
// do.
void check_layer_types(const json& file, const ModelConfig& config, Problems& problems) {
  const auto types = detail::find_strings(file, "layer_types", problems);
  if (!types) return;
  const std::string expected = config.sliding_window ? "sliding_attention" : "full_attention";
  for (const std::string& type : *types) {
    if (type == expected) continue;
    problems.add("layer_types has \"", type, "\"; every layer of this ", config.model_type,
                 " model has ", expected);
    return;
  }
}

// Replaces the ids that the file names: null is a value (none), absent is not.
void read_token_ids(const json& file, ModelConfig& config, Problems& problems) {
  if (file.contains("bos_token_id")) {
    config.bos_token_id = detail::find_int(file, "bos_token_id", problems, 0, kMaxTokenId);
  }
  if (file.contains("eos_token_id")) {
    config.eos_token_id = detail::find_ints(file, "eos_token_id", problems, 0, kMaxTokenId)
                              .value_or(std::vector<std::int64_t>{});
  }
  if (file.contains("pad_token_id")) {
    config.pad_token_id = detail::find_int(file, "pad_token_id", problems, -1, kMaxTokenId);
    // What the first Llama folders write for none.
    if (config.pad_token_id == -1) config.pad_token_id.reset();
  }
}

void refuse_unless_zero(const json& file, const char* key, Problems& problems) {
  const double value = detail::get_double_or(file, key, problems, 0.0);
  if (value != 0.0) problems.add(key, " is ", value, "; only 0 is supported");
}

void check_values(const ModelConfig& c, Problems& problems) {
  const auto in_range = [&](const char* name, std::int64_t value, std::int64_t max) {
    if (value < 1 || value > max) {
      problems.add(name, " is ", value, "; expected 1 to ", max);
      return false;
    }
    return true;
  };
  in_range("vocab_size", c.vocab_size, kMaxVocab);
  in_range("intermediate_size", c.intermediate_size, kMaxWidth);
  in_range("num_hidden_layers", c.num_hidden_layers, kMaxLayers);
  in_range("max_position_embeddings", c.max_position_embeddings, kMaxPositions);
  if (c.sliding_window) in_range("sliding_window", *c.sliding_window, kMaxPositions);
  const bool sizes = in_range("hidden_size", c.hidden_size, kMaxWidth) &
                     in_range("num_attention_heads", c.num_attention_heads, kMaxHeads) &
                     in_range("num_key_value_heads", c.num_key_value_heads, kMaxHeads);
  const bool head = !c.head_dim || in_range("head_dim", *c.head_dim, kMaxHeads);
  if (sizes && c.num_attention_heads % c.num_key_value_heads != 0) {
    problems.add("num_attention_heads (", c.num_attention_heads,
                 ") is not a multiple of num_key_value_heads (", c.num_key_value_heads, ")");
  }
  const bool needs_multiple = !c.head_dim || c.model_type == "llama";
  if (sizes && needs_multiple && c.hidden_size % c.num_attention_heads != 0) {
    problems.add("hidden_size (", c.hidden_size, ") is not a multiple of num_attention_heads (",
                 c.num_attention_heads, ")");
  } else if (sizes && head && c.head_size() % 2 != 0) {
    problems.add("a head has ", c.head_size(),
                 " dimensions; rotary embedding needs an even number");
  }
  if (c.hidden_act != "silu" && c.hidden_act != "swish") {
    problems.add("hidden_act is \"", c.hidden_act, "\"; supported: silu");
  }
  const auto positive = [&](const char* name, double value) {
    if (!std::isfinite(value) || value <= 0) problems.add(name, " is ", value, "; expected > 0");
  };
  positive("rms_norm_eps", c.rms_norm_eps);
  positive("rope_theta", c.rope_theta);
  if (!(c.initializer_range >= 0) || !std::isfinite(c.initializer_range)) {
    problems.add("initializer_range is ", c.initializer_range, "; expected 0 or more");
  }
  const Architecture* architecture = architecture_of_type(c.model_type);
  if (architecture == nullptr) {
    problems.add("the model_type \"", c.model_type,
                 "\" is not supported; supported: llama, mistral");
    return;
  }
  if (!architecture->has_biases && (c.attention_bias || c.mlp_bias)) {
    problems.add("a ", c.model_type,
                 " model has no biases: attention_bias and mlp_bias must be false");
  }
  if (!architecture->has_sliding_window && c.sliding_window) {
    problems.add("a ", c.model_type, " model has no sliding window: sliding_window must be null");
  }
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
  c.vocab_size = detail::get_int(file, "vocab_size", problems, 1, kMaxVocab);
  c.hidden_size = detail::get_int(file, "hidden_size", problems, 1, kMaxWidth);
  c.intermediate_size = detail::get_int(file, "intermediate_size", problems, 1, kMaxWidth);
  c.num_hidden_layers = detail::get_int(file, "num_hidden_layers", problems, 1, kMaxLayers);
  c.num_attention_heads = detail::get_int(file, "num_attention_heads", problems, 1, kMaxHeads);
  // A field that is null and one that is absent differ here, in transformers too.
  const bool kv_given = file.contains("num_key_value_heads");
  c.num_key_value_heads = detail::get_int_or(
      file, "num_key_value_heads", problems,
      kv_given ? c.num_attention_heads
               : architecture->num_key_value_heads.value_or(c.num_attention_heads),
      1, kMaxHeads);
  c.head_dim = detail::find_int(file, "head_dim", problems, 1, kMaxHeads);
  c.hidden_act = detail::get_string_or(file, "hidden_act", problems, "silu");
  c.max_position_embeddings =
      detail::get_int_or(file, "max_position_embeddings", problems,
                         architecture->max_position_embeddings, 1, kMaxPositions);
  c.initializer_range = detail::get_double_or(file, "initializer_range", problems, 0.02, 0.0, 1.0);
  c.rms_norm_eps = detail::get_double_or(file, "rms_norm_eps", problems, 1e-6, 0.0, 1.0);
  c.rope_theta = read_rope(file, problems);
  if (architecture->has_sliding_window) {
    c.sliding_window = detail::find_int(file, "sliding_window", problems, 1, kMaxPositions);
    if (!file.contains("sliding_window")) c.sliding_window = architecture->sliding_window;
  }
  c.tie_word_embeddings = detail::get_bool_or(file, "tie_word_embeddings", problems, false);
  c.attention_bias = detail::get_bool_or(file, "attention_bias", problems, false);
  c.mlp_bias = detail::get_bool_or(file, "mlp_bias", problems, false);
  read_token_ids(file, c, problems);
  c.dtype = read_dtype(file, {"dtype", "torch_dtype"}, problems);
  c.quantization_config = read_quantization(file, problems);
  check_layer_types(file, c, problems);
  refuse_unless_zero(file, "attention_dropout", problems);
  // The checks between fields would repeat what the fields themselves were found to be.
  if (problems.empty()) check_values(c, problems);
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
  check_values(*this, problems);
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
      // The spellings of transformers 4, which 5 reads too.
      {"rope_theta", rope_theta},
      {"tie_word_embeddings", tie_word_embeddings},
      {"torch_dtype", dtype ? json(hf_dtype_name(*dtype)) : json("float32")},
      {"use_cache", true},
      {"vocab_size", vocab_size},
  };
  if (architecture_of_type(model_type)->has_sliding_window) {
    file["sliding_window"] = nullable(sliding_window);
  }
  if (architecture_of_type(model_type)->has_biases) {
    file["attention_bias"] = attention_bias;
    file["mlp_bias"] = mlp_bias;
  }
  detail::write_json_file(path, file);
}

}  // namespace lorapp
