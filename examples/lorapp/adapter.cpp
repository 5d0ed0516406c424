#include "adapter.hpp"

#include "options.hpp"

#include <lorapp/error.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <sstream>
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

}  // namespace

void LoraOptions::add_to(CLI::App& app) {
  const LoraConfig defaults;
  app.add_option("--lora-r", lora_r, "Rank of the adapters")->default_str(text_of(defaults.r));
  app.add_option("--lora-alpha", lora_alpha, "Updates are scaled by alpha/r")
      ->default_str(text_of(defaults.lora_alpha));
  app.add_option("--lora-dropout", lora_dropout, "Dropout on the adapters' input, in training")
      ->default_str(text_of(defaults.lora_dropout));
  add_list(app, "--target-modules", target_modules,
           "Layers that get an adapter, by the ends of their names; all-linear: all but the head")
      ->delimiter(',')
      ->default_str(joined(defaults.target_modules));
  app.add_option("--bias", bias, "Biases that are trained along: none, all or lora_only")
      ->default_str(defaults.bias)
      ->check(CLI::IsMember({"none", "all", "lora_only"}));
  use_rslora_option_ =
      add_switch(app, "use-rslora", use_rslora, "Scale by alpha/sqrt(r) instead of alpha/r");
}

void LoraOptions::apply_to(LoraConfig& config) const {
  config.r = lora_r.value_or(config.r);
  config.lora_alpha = lora_alpha.value_or(config.lora_alpha);
  config.lora_dropout = lora_dropout.value_or(config.lora_dropout);
  config.bias = bias.value_or(config.bias);
  if (!target_modules.empty()) config.target_modules = target_modules;
  if (use_rslora_option_->count() > 0) config.use_rslora = use_rslora;
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
  compare("--use-rslora", asked.use_rslora, on_disk.use_rslora);
  if (!target_modules.empty()) {
    compare("--target-modules", joined(target_modules),
            on_disk.target_modules_regex.value_or(joined(on_disk.target_modules)));
  }
  problems.throw_if_any();
  asked.validate();
  return asked;
}

void note_other_base(const LoraConfig& config,
                     const std::filesystem::path& adapter,
                     const std::string& model,
                     const Console& console) {
  const std::string& base = config.base_model_name_or_path;
  if (base.empty() || base == model) return;
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
