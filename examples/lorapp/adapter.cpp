#include "adapter.hpp"

#include "options.hpp"

#include <lorapp/error.hpp>
#include <lorapp/nn/traverse.hpp>
#include <lorapp/peft/module_pattern.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <map>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

namespace lorapp::program {

namespace {

std::string joined(std::vector<std::string> names) {
  std::ranges::sort(names);
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ",") + name;
  return text;
}

template <class T>
std::string text_of(const T& value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

/// Whether `text` is one whole number of type T.
template <class T>
bool parse_number(std::string_view text, T& value) {
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && stop == text.data() + text.size();
}

/// "PATTERN=NUMBER" taken apart at its last '='; false where it is not that.
template <class T>
bool parse_pattern(const std::string& text, std::string& pattern, T& value) {
  const std::size_t equals = text.rfind('=');
  if (equals == std::string::npos || equals == 0) return false;
  pattern = text.substr(0, equals);
  return parse_number(std::string_view(text).substr(equals + 1), value);
}

template <class T>
CLI::Validator pattern_of(const std::string& number) {
  const auto check = [number](const std::string& text) {
    std::string pattern;
    T value{};
    if (parse_pattern(text, pattern, value)) return std::string{};
    return "expected PATTERN=" + number + ", found \"" + text + "\"";
  };
  return CLI::Validator(check, "PATTERN=" + number);
}

template <class T>
std::map<std::string, T> patterns(const std::vector<std::string>& texts) {
  std::map<std::string, T> found;
  for (const std::string& text : texts) {
    std::string pattern;
    T value{};
    parse_pattern(text, pattern, value);  // the option's check has seen it
    found[pattern] = value;
  }
  return found;
}

/// "ID,ID,…" for the embedding of the input, or "MODULE=ID,ID,…"; false where it is neither.
bool parse_tokens(const std::string& text, std::string& module, std::vector<std::int64_t>& ids) {
  const std::size_t equals = text.rfind('=');
  module = equals == std::string::npos ? std::string{} : text.substr(0, equals);
  if (equals != std::string::npos && module.empty()) return false;
  std::string_view rest(text);
  if (equals != std::string::npos) rest.remove_prefix(equals + 1);
  while (true) {
    const std::size_t comma = rest.find(',');
    std::int64_t id = 0;
    if (!parse_number(rest.substr(0, comma), id) || id < 0) return false;
    ids.push_back(id);
    if (comma == std::string_view::npos) return true;
    rest.remove_prefix(comma + 1);
  }
}

std::string check_tokens(const std::string& text) {
  std::string module;
  std::vector<std::int64_t> ids;
  if (parse_tokens(text, module, ids)) return {};
  return "expected token ids as ID,ID or MODULE=ID,ID, found \"" + text + "\"";
}

LoraInit parse_init(const std::string& name) {
  if (name == "gaussian") return LoraInit::gaussian;
  return name == "random" ? LoraInit::random : LoraInit::kaiming;
}

}  // namespace

void LoraOptions::add_to(CLI::App& app) {
  const LoraConfig defaults;
  app.add_option("--lora-r", lora_r, "Rank of the adapters")->default_str(text_of(defaults.r));
  app.add_option("--lora-alpha", lora_alpha, "Updates are scaled by alpha/r")
      ->default_str(text_of(defaults.lora_alpha));
  app.add_option("--lora-dropout", lora_dropout, "Dropout on the adapters' input, in training")
      ->default_str(text_of(defaults.lora_dropout));
  add_layers_to(app);
  app.add_option("--bias", bias, "Biases that are trained along: none, all or lora_only")
      ->default_str(defaults.bias)
      ->check(CLI::IsMember({"none", "all", "lora_only"}));
  lora_bias_option_ = add_switch(app, "lora-bias", lora_bias, "Give B a bias of its own");
  use_rslora_option_ =
      add_switch(app, "use-rslora", use_rslora, "Scale by alpha/sqrt(r) instead of alpha/r");
  app.add_option("--init-lora-weights", init_lora_weights,
                 "How A starts, where B is zero: kaiming or gaussian; random: B is not zero either")
      ->default_str("kaiming")
      ->check(CLI::IsMember({"kaiming", "gaussian", "random"}));
}

void LoraOptions::add_layers_to(CLI::App& app) {
  auto* targets =
      add_list(app, "--target-modules", target_modules,
               "Layers that get an adapter, by the ends of their names; all-linear: all but the "
               "head")
          ->delimiter(',')
          ->default_str(joined(LoraConfig{}.target_modules));
  app.add_option("--target-modules-regex", target_modules_regex,
                 "The same by a regular expression for whole paths")
      ->excludes(targets);
  add_list(app, "--exclude-modules", exclude_modules, "Layers to leave out, by the same rules")
      ->delimiter(',');
  app.add_option("--layers-to-transform", layers_to_transform, "Only the layers of these numbers")
      ->allow_extra_args(false)
      ->delimiter(',')
      ->check(at_least(0));
  add_list(app, "--layers-pattern", layers_pattern, "The part of a path before a layer's number")
      ->delimiter(',');
  add_list(app, "--rank-pattern", rank_pattern,
           "Another rank for the layers whose path ends with a pattern; may be repeated")
      ->check(pattern_of<std::int64_t>("R"));
  add_list(app, "--alpha-pattern", alpha_pattern, "Another alpha, in the same way")
      ->check(pattern_of<double>("ALPHA"));
  add_list(app, "--modules-to-save", modules_to_save,
           "Modules that are trained whole and saved with the adapter, by the ends of their names")
      ->delimiter(',');
  add_list(app, "--trainable-token-indices", trainable_token_indices,
           "Tokens whose rows of the embedding (or of MODULE=) are trained; may be repeated")
      ->check(CLI::Validator(check_tokens, "[MODULE=]ID,.."));
}

void LoraOptions::apply_to(LoraConfig& config) const {
  config.r = lora_r.value_or(config.r);
  config.lora_alpha = lora_alpha.value_or(config.lora_alpha);
  config.lora_dropout = lora_dropout.value_or(config.lora_dropout);
  config.bias = bias.value_or(config.bias);
  if (!target_modules.empty()) {
    config.target_modules = target_modules;
    config.target_modules_regex.reset();
  }
  if (target_modules_regex) {
    config.target_modules.clear();
    config.target_modules_regex = target_modules_regex;
  }
  if (!exclude_modules.empty()) config.exclude_modules = exclude_modules;
  if (!layers_to_transform.empty()) config.layers_to_transform = layers_to_transform;
  if (!layers_pattern.empty()) config.layers_pattern = layers_pattern;
  if (!rank_pattern.empty()) config.rank_pattern = patterns<std::int64_t>(rank_pattern);
  if (!alpha_pattern.empty()) config.alpha_pattern = patterns<double>(alpha_pattern);
  if (!modules_to_save.empty()) config.modules_to_save = modules_to_save;
  if (!trainable_token_indices.empty()) config.trainable_token_indices.clear();
  for (const std::string& text : trainable_token_indices) {
    std::string module;
    std::vector<std::int64_t> ids;
    parse_tokens(text, module, ids);  // the option's check has seen it
    auto& all = config.trainable_token_indices[module];
    all.insert(all.end(), ids.begin(), ids.end());
  }
  if (init_lora_weights) config.init_lora_weights = parse_init(*init_lora_weights);
  if (use_rslora_option_->count() > 0) config.use_rslora = use_rslora;
  if (lora_bias_option_->count() > 0) config.lora_bias = lora_bias;
}

LoraConfig LoraOptions::new_adapter() const {
  LoraConfig config;
  apply_to(config);
  config.validate();
  return config;
}

LoraConfig LoraOptions::from_adapter(const std::filesystem::path& adapter) const {
  const LoraConfig on_disk = LoraConfig::from_file(adapter / "adapter_config.json");
  LoraConfig asked = on_disk;
  apply_to(asked);
  Problems problems("init_adapter", adapter.string());
  const auto compare = [&](const char* option, const auto& want, const auto& have) {
    if (want == have) return;
    problems.add(option, " ", text_of(want), " contradicts the adapter, which has ", text_of(have));
  };
  compare("--lora-r", asked.r, on_disk.r);
  compare("--lora-alpha", asked.lora_alpha, on_disk.lora_alpha);
  compare("--bias", asked.bias, on_disk.bias);
  compare("--lora-bias", asked.lora_bias, on_disk.lora_bias);
  compare("--use-rslora", asked.use_rslora, on_disk.use_rslora);
  const auto targets = [](const LoraConfig& config) {
    return config.target_modules_regex.value_or(joined(config.target_modules));
  };
  if (asks_all_linear()) {
    asked.target_modules = on_disk.target_modules;  // a file has the names: see check_targets
    asked.target_modules_regex = on_disk.target_modules_regex;
  }
  compare(target_modules_regex ? "--target-modules-regex" : "--target-modules", targets(asked),
          targets(on_disk));
  compare("--exclude-modules", joined(asked.exclude_modules), joined(on_disk.exclude_modules));
  compare("--layers-pattern", joined(asked.layers_pattern), joined(on_disk.layers_pattern));
  compare("--modules-to-save", joined(asked.modules_to_save), joined(on_disk.modules_to_save));
  // As text these would be long: adapter_config.json has them.
  const auto differs = [&](const char* option, const auto& want, const auto& have) {
    if (want != have) problems.add(option, " contradicts the adapter's adapter_config.json");
  };
  differs("--layers-to-transform", asked.layers_to_transform, on_disk.layers_to_transform);
  differs("--rank-pattern", asked.rank_pattern, on_disk.rank_pattern);
  differs("--alpha-pattern", asked.alpha_pattern, on_disk.alpha_pattern);
  differs("--trainable-token-indices", asked.trainable_token_indices,
          on_disk.trainable_token_indices);
  problems.throw_if_any();
  asked.validate();
  return asked;
}

bool LoraOptions::asks_all_linear() const {
  LoraConfig asked;
  asked.target_modules = target_modules;
  return targets_all_linear(asked);
}

void LoraOptions::check_targets(PeftModel& model, const std::string& adapter) const {
  if (!asks_all_linear()) return;
  std::size_t linears = 0;
  for_each_linear(*model.base(), [&](const std::string& path, LinearImpl&) {
    if (path != "lm_head") ++linears;
  });
  LORAPP_CHECK(model.adapted_layers().size() == linears, "init_adapter", adapter,
               ": --target-modules all-linear means ", linears, " layers, and the adapter is on ",
               model.adapted_layers().size());
}

void note_other_base(const LoraConfig& config,
                     const std::filesystem::path& adapter,
                     const std::string& model,
                     const Console& console) {
  const std::string& base = config.base_model_name_or_path;
  std::error_code not_both_there;
  if (base.empty() || base == model ||
      std::filesystem::equivalent(base, model, not_both_there)) {
    return;
  }
  console.note(adapter.string() + " was made for the base model " + base + ", and is used with " +
               model);
}

std::shared_ptr<PeftModel> load_adapter(std::shared_ptr<CausalLM> base,
                                        const std::filesystem::path& adapter,
                                        const std::string& model,
                                        const Console& console) {
  console.say("Loading the adapter " + adapter.string());
  auto tuned = std::make_shared<PeftModel>(PeftModel::from_pretrained(std::move(base), adapter));
  note_other_base(tuned->peft_config(), adapter, model, console);
  return tuned;
}

}  // namespace lorapp::program
