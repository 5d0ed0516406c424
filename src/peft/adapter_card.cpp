#include "adapter_card.hpp"

#include "json_file.hpp"
#include "nearest_names.hpp"

#include <lorapp/version.hpp>

#include <algorithm>
#include <vector>

namespace lorapp::detail {

std::string adapter_card(const LoraConfig& config) {
  const std::string& base = config.base_model_name_or_path;
  // Only an id of the hub makes a link; a path of this machine would be an invalid value there.
  const bool is_hub_id = !base.empty() && std::count(base.begin(), base.end(), '/') == 1 &&
                         base.front() != '/' && base.front() != '.' && base.back() != '/';
  std::vector<std::string> targets = config.target_modules;
  std::sort(targets.begin(), targets.end());

  std::string card = "---\n";
  if (is_hub_id) card += "base_model: " + base + "\n";
  card += "library_name: peft\npipeline_tag: text-generation\ntags:\n- lora\n- lorapp\n---\n\n";
  card += "# LoRA adapter\n\n";
  card += "Low-rank updates for a frozen base model";
  if (!base.empty()) card += " (`" + base + "`)";
  card += ", trained with lorapp " + std::string(kVersion) + ".\n\n";
  card += "| setting | value |\n|---|---|\n";
  card += "| r | " + std::to_string(config.r) + " |\n";
  card += "| lora_alpha | " + python_float(config.lora_alpha) + " |\n";
  card += "| lora_dropout | " + python_float(config.lora_dropout) + " |\n";
  card += "| target_modules | " +
          (config.target_modules_regex ? "`" + *config.target_modules_regex + "`"
                                       : list_names(targets)) +
          " |\n\n";
  card +=
      "`adapter_config.json` and `adapter_model.safetensors` are PEFT's two files: load them with "
      "lorapp's\n`PeftModel::from_pretrained(base, dir)` or PEFT's "
      "`PeftModel.from_pretrained(base, dir)`.\n";
  return card;
}

}  // namespace lorapp::detail
