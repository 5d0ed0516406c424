// Rotary parameters in a config.json.
#include "nn/architectures.hpp"

#include <cmath>
#include <string>

namespace lorapp::detail {

namespace {

using nlohmann::json;

constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e9;

constexpr RopeType kRopeTypes[] = {RopeType::none, RopeType::linear, RopeType::dynamic,
                                   RopeType::yarn, RopeType::llama3};

RopeType read_type(const json& rope, const std::string& key, Problems& problems) {
  const std::string found = get_string_or(rope, {"rope_type", "type"}, problems, "default");
  std::string supported;
  for (const RopeType type : kRopeTypes) {
    if (found == rope_type_name(type)) return type;
    supported += (supported.empty() ? "" : ", ") + std::string(rope_type_name(type));
  }
  problems.add(key, ": the rope_type \"", found, "\" is not supported; supported: ", supported);
  return RopeType::none;
}

// The section that counts: transformers 5 takes rope_scaling where both are given.
const json* find_section(const json& file, std::string& key, Problems& problems) {
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    const json* rope = find_object(file, name, problems);
    if (rope == nullptr || rope->empty()) continue;
    key = name;
    return rope;
  }
  return nullptr;
}

void refuse_partial_rotation(const json& object, const std::string& prefix, Problems& problems) {
  if (get_double_or(object, "partial_rotary_factor", problems, 1.0) != 1.0) {
    problems.add(prefix, "partial_rotary_factor must be 1");
  }
}

// What the rule reads; a number that it needs and the file has not is a problem.
void read_scaling(const json& file, const json& rope, ModelConfig& config, Problems& problems) {
  RopeScaling& scaling = config.rope_scaling;
  const auto factor = [&](const char* name) {
    return get_double(rope, name, problems, 0.0, kMaxFactor);
  };
  const bool has_original = scaling.type == RopeType::llama3 || scaling.type == RopeType::yarn;
  if (has_original) {
    // Beside the section it comes first, as in transformers; only Phi3 is known to write it there.
    const auto outside =
        find_int(file, "original_max_position_embeddings", problems, 1, kMaxPositions);
    const auto inside =
        find_int(rope, "original_max_position_embeddings", problems, 1, kMaxPositions);
    scaling.original_max_position_embeddings = outside  ? outside
                                               : inside ? inside
                                                        : config.max_position_embeddings;
  }
  if (scaling.type == RopeType::yarn && rope.contains("factor") && rope["factor"].is_null()) {
    scaling.factor = static_cast<double>(config.max_position_embeddings) /
                     static_cast<double>(*scaling.original_max_position_embeddings);
  } else {
    scaling.factor = factor("factor");
  }
  if (scaling.type == RopeType::llama3) {
    scaling.low_freq_factor = factor("low_freq_factor");
    scaling.high_freq_factor = factor("high_freq_factor");
  }
  if (scaling.type == RopeType::yarn) {
    scaling.attention_factor = find_double(rope, "attention_factor", problems, 0.0, kMaxFactor);
    scaling.mscale = find_double(rope, "mscale", problems, 0.0, kMaxFactor);
    scaling.mscale_all_dim = find_double(rope, "mscale_all_dim", problems, 0.0, kMaxFactor);
    // 0 means the default too, in transformers.
    const auto turns = [&](const char* name, double fallback) {
      const double value = get_double_or(rope, name, problems, fallback, 0.0, kMaxFactor);
      return value == 0 ? fallback : value;
    };
    scaling.beta_fast = turns("beta_fast", scaling.beta_fast);
    scaling.beta_slow = turns("beta_slow", scaling.beta_slow);
    scaling.truncate = get_bool_or(rope, "truncate", problems, true);
  }
}

}  // namespace

void read_rope(const json& file, ModelConfig& config, Problems& problems) {
  config.rope_theta = get_double_or(file, "rope_theta", problems, 10000.0, 1.0, kMaxTheta);
  refuse_partial_rotation(file, "", problems);
  std::string key;
  const json* rope = find_section(file, key, problems);
  if (rope == nullptr) return;
  for (const auto& [name, value] : rope->items()) {
    if (!value.is_object()) continue;
    problems.add(key, ": \"", name, "\" is an object; parameters that differ from layer to layer ",
                 "are not supported");
    return;
  }
  refuse_partial_rotation(*rope, key + ": ", problems);
  config.rope_theta =
      get_double_or(*rope, "rope_theta", problems, config.rope_theta, 1.0, kMaxTheta);
  config.rope_scaling.type = read_type(*rope, key, problems);
  if (config.rope_scaling.type == RopeType::none) return;
  read_scaling(file, *rope, config, problems);
}

void check_rope(const ModelConfig& config, Problems& problems) {
  const auto positive = [&](const char* name, double value) {
    if (!std::isfinite(value) || value <= 0) problems.add(name, " is ", value, "; expected > 0");
  };
  positive("rope_theta", config.rope_theta);
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.type == RopeType::none) return;
  positive("rope_scaling.factor", scaling.factor);
  if (scaling.original_max_position_embeddings && *scaling.original_max_position_embeddings < 1) {
    problems.add("rope_scaling.original_max_position_embeddings is ",
                 *scaling.original_max_position_embeddings, "; expected 1 or more");
  }
  if (scaling.type == RopeType::dynamic && config.head_size() < 4) {
    problems.add("dynamic rotary scaling needs heads of 4 dimensions or more; they have ",
                 config.head_size());
  }
  if (scaling.type == RopeType::llama3) {
    positive("rope_scaling.low_freq_factor", scaling.low_freq_factor);
    if (!(scaling.high_freq_factor > scaling.low_freq_factor)) {
      problems.add("rope_scaling.high_freq_factor is ", scaling.high_freq_factor,
                   "; expected more than low_freq_factor, ", scaling.low_freq_factor);
    }
  }
  if (scaling.type == RopeType::yarn) {
    if (config.rope_theta == 1) problems.add("rope_theta is 1; yarn needs another");
    positive("rope_scaling.beta_fast", scaling.beta_fast);
    positive("rope_scaling.beta_slow", scaling.beta_slow);
    if (scaling.attention_factor) {
      positive("rope_scaling.attention_factor", *scaling.attention_factor);
    }
  }
}

void write_rope(const ModelConfig& config, json& file) {
  file["rope_theta"] = config.rope_theta;
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.type == RopeType::none) return;
  json rope = {{"rope_type", rope_type_name(scaling.type)}, {"factor", scaling.factor}};
  if (scaling.type == RopeType::llama3 || scaling.type == RopeType::yarn) {
    rope["original_max_position_embeddings"] =
        scaling.original_max_position_embeddings.value_or(config.max_position_embeddings);
  }
  if (scaling.type == RopeType::llama3) {
    rope["low_freq_factor"] = scaling.low_freq_factor;
    rope["high_freq_factor"] = scaling.high_freq_factor;
  }
  if (scaling.type == RopeType::yarn) {
    rope["beta_fast"] = scaling.beta_fast;
    rope["beta_slow"] = scaling.beta_slow;
    if (!scaling.truncate) rope["truncate"] = false;
    if (scaling.attention_factor) rope["attention_factor"] = *scaling.attention_factor;
    if (scaling.mscale) rope["mscale"] = *scaling.mscale;
    if (scaling.mscale_all_dim) rope["mscale_all_dim"] = *scaling.mscale_all_dim;
  }
  file["rope_scaling"] = rope;
}

}  // namespace lorapp::detail
