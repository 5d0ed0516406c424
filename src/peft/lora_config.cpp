// adapter_config.json: PEFT's keys and defaults, checked, and written so that PEFT reads it.
#include "json_file.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/lora_config.hpp>
#include <lorapp/peft/module_pattern.hpp>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

namespace lorapp {

namespace {

using nlohmann::json;

constexpr const char* kOp = "lora_config";

// What PEFT means by a key that a file leaves out.
constexpr std::int64_t kPeftRank = 8;
constexpr double kPeftAlpha = 8;
constexpr double kPeftDropout = 0;

constexpr std::array<std::string_view, 3> kBiasKinds = {"none", "all", "lora_only"};

// Keys that change what a model computes (or which tensors a file holds) in ways that are not
// supported. They are kept where they are unset: null, false, or empty.
constexpr std::array<const char*, 12> kUnsupportedKeys = {"alora_invocation_tokens",
                                                          "arrow_config",
                                                          "ensure_weight_tying",
                                                          "kasa_config",
                                                          "layer_replication",
                                                          "megatron_config",
                                                          "monteclora_config",
                                                          "target_parameters",
                                                          "use_bdlora",
                                                          "use_dora",
                                                          "use_qalora",
                                                          "velora_config"};

// Keys that are fields of LoraConfig, or fixed.
const std::set<std::string>& known_keys() {
  static const std::set<std::string> keys = {"alpha_pattern",
                                             "base_model_name_or_path",
                                             "bias",
                                             "exclude_modules",
                                             "fan_in_fan_out",
                                             "inference_mode",
                                             "init_lora_weights",
                                             "layers_pattern",
                                             "layers_to_transform",
                                             "lora_alpha",
                                             "lora_dropout",
                                             "peft_type",
                                             "r",
                                             "rank_pattern",
                                             "target_modules",
                                             "task_type",
                                             "use_rslora"};
  return keys;
}

// Fields too, but readers older than a key reject it, so it is written only where it is set.
const std::set<std::string>& optional_keys() {
  static const std::set<std::string> keys = {"lora_bias", "modules_to_save",
                                             "trainable_token_indices"};
  return keys;
}

bool is_unset(const json& value) {
  return value.is_null() || value == false ||
         ((value.is_object() || value.is_array()) && value.empty());
}

// A key that holds either one string (a regular expression, or "all-linear") or a list of names.
void read_names(const json& object,
                const char* key,
                std::vector<std::string>& names,
                std::optional<std::string>& regex,
                Problems& problems) {
  const json* value = detail::Keys(key).find(object);
  names.clear();
  regex.reset();
  if (value == nullptr) return;
  if (value->is_string()) {
    LoraConfig probe;
    probe.target_modules = {value->get<std::string>()};
    if (targets_all_linear(probe)) {
      names = std::move(probe.target_modules);
    } else {
      regex = value->get<std::string>();
    }
  } else if (auto list = detail::find_strings(object, key, problems)) {
    names = std::move(*list);
  }
}

// A list of ids for the input's embedding, or lists by the names of embeddings.
void read_token_indices(const json& object, LoraConfig& config, Problems& problems) {
  constexpr const char* kKey = "trainable_token_indices";
  const json* value = detail::Keys(kKey).find(object);
  if (value == nullptr || is_unset(*value)) return;
  if (!value->is_object()) {
    if (auto ids = detail::find_ints(object, kKey, problems)) {
      config.trainable_token_indices[""] = std::move(*ids);
    }
    return;
  }
  for (const auto& item : value->items()) {
    if (item.key().empty()) problems.add(kKey, " has a layer without a name");
    if (auto ids = detail::find_ints(*value, item.key(), problems)) {
      config.trainable_token_indices[item.key()] = std::move(*ids);
    }
  }
}

LoraInit read_init(const json& object, Problems& problems) {
  const json* value = detail::Keys("init_lora_weights").find(object);
  if (value == nullptr || *value == true) return LoraInit::kaiming;
  if (*value == "gaussian") return LoraInit::gaussian;
  if (*value == false) return LoraInit::random;
  problems.add("init_lora_weights is ", detail::describe(*value),
               "; supported are true, false and \"gaussian\"");
  return LoraInit::kaiming;
}

json init_to_json(LoraInit init) {
  switch (init) {
    case LoraInit::gaussian:
      return "gaussian";
    case LoraInit::random:
      return false;
    default:
      return true;
  }
}

// PEFT writes alpha as it was given, mostly an integer.
json number_to_json(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

template <class Names>
json names_to_json(Names names, const std::optional<std::string>& regex) {
  if (regex) return *regex;
  if (names.empty()) return nullptr;
  std::sort(names.begin(), names.end());
  return names;
}

// Everything that is wrong with the fields themselves.
void check_fields(const LoraConfig& config, Problems& problems) {
  const auto check_rank = [&problems](std::int64_t rank, const std::string& name) {
    if (rank < 1) problems.add(name, " is ", rank, "; expected 1 or more");
  };
  const auto check_alpha = [&problems](double alpha, const std::string& name) {
    if (!std::isfinite(alpha)) problems.add(name, " is ", alpha, "; expected a finite number");
  };
  const auto check_regex = [&problems](const std::string& expression, const std::string& name) {
    try {
      const ModulePattern compiled(expression);
    } catch (const Error& error) {
      problems.add(name, ": ", error.what());
    }
  };
  const auto check_names = [&problems](const std::vector<std::string>& names,
                                       const std::string& key) {
    for (const std::string& name : names) {
      if (name.empty()) problems.add(key, " has an empty name");
    }
  };

  check_rank(config.r, "r");
  check_alpha(config.lora_alpha, "lora_alpha");
  if (!(config.lora_dropout >= 0 && config.lora_dropout < 1)) {
    problems.add("lora_dropout is ", config.lora_dropout, "; expected a probability in [0, 1)");
  }
  if (std::find(kBiasKinds.begin(), kBiasKinds.end(), config.bias) == kBiasKinds.end()) {
    problems.add("bias is \"", config.bias, "\"; expected \"none\", \"all\" or \"lora_only\"");
  }
  if (config.task_type != "CAUSAL_LM" && !config.task_type.empty()) {
    problems.add("task_type is \"", config.task_type, "\"; only \"CAUSAL_LM\" is supported");
  }
  for (const auto& [key, rank] : config.rank_pattern) {
    check_rank(rank, "rank_pattern[\"" + key + "\"]");
    check_regex(key, "rank_pattern");
  }
  for (const auto& [key, alpha] : config.alpha_pattern) {
    check_alpha(alpha, "alpha_pattern[\"" + key + "\"]");
    check_regex(key, "alpha_pattern");
  }

  check_names(config.target_modules, "target_modules");
  check_names(config.exclude_modules, "exclude_modules");
  check_names(config.modules_to_save, "modules_to_save");
  for (const std::string& name : config.modules_to_save) check_regex(name, "modules_to_save");
  if (config.lora_bias && config.init_lora_weights == LoraInit::gaussian) {
    problems.add("lora_bias is true, which PEFT refuses with init_lora_weights \"gaussian\"");
  }
  for (const auto& [layer, ids] : config.trainable_token_indices) {
    const std::string key =
        "trainable_token_indices" + (layer.empty() ? "" : "[\"" + layer + "\"]");
    if (ids.empty()) problems.add(key, " is empty");
    std::set<std::int64_t> seen;
    for (const std::int64_t id : ids) {
      if (id < 0) problems.add(key, " has ", id, "; expected a token id");
      if (!seen.insert(id).second) problems.add(key, " has ", id, " twice");
    }
  }
  if (config.trainable_token_indices.size() > 1 && config.trainable_token_indices.contains("")) {
    problems.add("trainable_token_indices mixes a list and layers by name");
  }
  if (config.target_modules.empty() && !config.target_modules_regex) {
    problems.add("target_modules is empty: no layer would be adapted");
  }
  if (!config.target_modules.empty() && config.target_modules_regex) {
    problems.add("target_modules and target_modules_regex are both set; one must be empty");
  }
  if (!config.exclude_modules.empty() && config.exclude_modules_regex) {
    problems.add("exclude_modules and exclude_modules_regex are both set; one must be empty");
  }
  if (config.target_modules_regex) check_regex(*config.target_modules_regex, "target_modules");
  if (config.exclude_modules_regex) check_regex(*config.exclude_modules_regex, "exclude_modules");
  if (!config.layers_to_transform.empty() &&
      (config.target_modules_regex || targets_all_linear(config))) {
    problems.add("layers_to_transform works with a list of target_modules only");
  }
  for (const std::int64_t layer : config.layers_to_transform) {
    if (layer < 0) problems.add("layers_to_transform has ", layer, "; expected 0 or more");
  }
  if (config.layers_to_transform.empty() && !config.layers_pattern.empty()) {
    problems.add("layers_pattern is set but layers_to_transform is not");
  }
  for (const std::string& pattern : config.layers_pattern) check_regex(pattern, "layers_pattern");
  if (config.fan_in_fan_out) {
    problems.add("fan_in_fan_out is true, but all layers store their weights as [out, in]");
  }
}

// The value of the first pattern that matches the end of a path.
template <class Value>
Value value_of(const std::map<std::string, Value>& patterns,
               const std::string& path,
               Value fallback) {
  for (const auto& [key, value] : patterns) {
    if (ModulePattern("(.*\\.)?(" + key + ")").matches(path)) return value;
  }
  return fallback;
}

}  // namespace

void LoraConfig::validate() const {
  Problems problems(kOp, "LoraConfig");
  check_fields(*this, problems);
  problems.throw_if_any();
}

std::int64_t LoraConfig::rank_of(const std::string& path) const {
  return value_of(rank_pattern, path, r);
}

double LoraConfig::alpha_of(const std::string& path) const {
  return value_of(alpha_pattern, path, lora_alpha);
}

LoraConfig LoraConfig::from_file(const std::filesystem::path& path) {
  const json object = detail::read_json_object(path, kOp);
  Problems problems(kOp, path.string());
  LoraConfig config;
  const std::string peft_type = detail::get_string(object, "peft_type", problems);
  if (!peft_type.empty() && peft_type != "LORA") {
    problems.add("peft_type is \"", peft_type, "\"; only \"LORA\" is supported");
  }
  config.r = detail::get_int_or(object, "r", problems, kPeftRank, 1);
  config.lora_alpha = detail::get_double_or(object, "lora_alpha", problems, kPeftAlpha);
  config.lora_dropout = detail::get_double_or(object, "lora_dropout", problems, kPeftDropout);
  config.bias = detail::get_string_or(object, "bias", problems, "none");
  config.task_type = detail::get_string_or(object, "task_type", problems, "");
  config.use_rslora = detail::get_bool_or(object, "use_rslora", problems, false);
  config.inference_mode = detail::get_bool_or(object, "inference_mode", problems, false);
  config.fan_in_fan_out = detail::get_bool_or(object, "fan_in_fan_out", problems, false);
  config.base_model_name_or_path =
      detail::get_string_or(object, "base_model_name_or_path", problems, "");
  config.init_lora_weights = read_init(object, problems);
  read_names(object, "target_modules", config.target_modules, config.target_modules_regex,
             problems);
  read_names(object, "exclude_modules", config.exclude_modules, config.exclude_modules_regex,
             problems);
  if (config.target_modules.empty() && !config.target_modules_regex) {
    config.target_modules = {"q_proj", "v_proj"};  // PEFT's default for Llama and Mistral
  }
  config.layers_to_transform = detail::find_ints(object, "layers_to_transform", problems)
                                   .value_or(std::vector<std::int64_t>{});
  config.modules_to_save = detail::find_strings(object, "modules_to_save", problems)
                               .value_or(std::vector<std::string>{});
  config.lora_bias = detail::get_bool_or(object, "lora_bias", problems, false);
  read_token_indices(object, config, problems);
  if (const json* pattern = detail::Keys("layers_pattern").find(object)) {
    if (pattern->is_string()) {
      if (*pattern != "") config.layers_pattern = {pattern->get<std::string>()};
    } else if (auto list = detail::find_strings(object, "layers_pattern", problems)) {
      config.layers_pattern = std::move(*list);
    }
  }
  if (const json* patterns = detail::find_object(object, "rank_pattern", problems)) {
    for (const auto& item : patterns->items()) {
      config.rank_pattern[item.key()] = detail::get_int(*patterns, item.key(), problems, 1);
    }
  }
  if (const json* patterns = detail::find_object(object, "alpha_pattern", problems)) {
    for (const auto& item : patterns->items()) {
      config.alpha_pattern[item.key()] = detail::get_double(*patterns, item.key(), problems);
    }
  }

  for (const char* key : kUnsupportedKeys) {
    if (object.contains(key) && !is_unset(object[key])) {
      problems.add(key, " is ", detail::describe(object[key]), "; ",
                   std::string_view(key) == "use_dora" ? "DoRA" : "this feature",
                   " is not supported");
    }
  }
  for (const auto& item : object.items()) {
    // Of the keys that are written only where they say something, an unset one is kept as it is.
    if (!known_keys().contains(item.key()) &&
        !(optional_keys().contains(item.key()) && !is_unset(item.value()))) {
      config.unknown_keys[item.key()] = detail::dump_json(item.value(), {.indent = -1});
    }
  }
  check_fields(config, problems);
  problems.throw_if_any();
  return config;
}

void LoraConfig::save(const std::filesystem::path& path) const {
  json object = json::object();
  for (const auto& [key, text] : unknown_keys) {
    object[key] = detail::parse_json(text, kOp, "unknown_keys[\"" + key + "\"]");
  }
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? json() : json(text);
  };
  object["alpha_pattern"] = json::object();
  for (const auto& [key, alpha] : alpha_pattern)
    object["alpha_pattern"][key] = number_to_json(alpha);
  object["base_model_name_or_path"] = text_or_null(base_model_name_or_path);
  object["bias"] = bias;
  // Readers older than the key reject it, so it is written only where it says something.
  if (!exclude_modules.empty() || exclude_modules_regex) {
    object["exclude_modules"] = names_to_json(exclude_modules, exclude_modules_regex);
  }
  object["fan_in_fan_out"] = fan_in_fan_out;
  object["inference_mode"] = true;
  object["init_lora_weights"] = init_to_json(init_lora_weights);
  object["layers_pattern"] = layers_pattern.empty() ? json() : json(layers_pattern);
  object["layers_to_transform"] = layers_to_transform.empty() ? json() : json(layers_to_transform);
  object["lora_alpha"] = number_to_json(lora_alpha);
  if (lora_bias) object["lora_bias"] = true;
  object["lora_dropout"] = lora_dropout;
  if (!modules_to_save.empty()) object["modules_to_save"] = modules_to_save;
  object["peft_type"] = "LORA";
  object["r"] = r;
  object["rank_pattern"] = rank_pattern;
  object["target_modules"] = targets_all_linear(*this)
                                 ? json(target_modules.front())
                                 : names_to_json(target_modules, target_modules_regex);
  object["task_type"] = text_or_null(task_type);
  if (trainable_token_indices.size() == 1 && trainable_token_indices.contains("")) {
    object["trainable_token_indices"] = trainable_token_indices.at("");
  } else if (!trainable_token_indices.empty()) {
    object["trainable_token_indices"] = trainable_token_indices;
  }
  object["use_rslora"] = use_rslora;
  detail::write_json_file(path, object);
}

}  // namespace lorapp
