// LoRA's options, and adapters that come from disk.
#pragma once

#include "console.hpp"

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/peft/lora_config.hpp>
#include <lorapp/peft/peft_model.hpp>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace lorapp::program {

/// An option that was not given is LoraConfig's default, or what an adapter on disk says.
struct LoraOptions {
  std::optional<std::int64_t> lora_r{};
  std::optional<double> lora_alpha{};
  std::optional<double> lora_dropout{};
  std::vector<std::string> target_modules{};
  std::optional<std::string> bias{};
  bool use_rslora = false;

  void add_to(CLI::App& app);

  /// The configuration of a new adapter.
  LoraConfig new_adapter() const;

  /// The configuration in an adapter folder, whose values rule: an option that contradicts one is
  /// an Error that lists them all. Dropout may differ.
  LoraConfig from_adapter(const std::filesystem::path& adapter) const;

 private:
  void apply_to(LoraConfig& config) const;

  CLI::Option* use_rslora_option_ = nullptr;
};

/// Says so where an adapter was made for a base of another name.
void note_other_base(const LoraConfig& config,
                     const std::filesystem::path& adapter,
                     const std::string& model,
                     const Console& console);

/// `base` with the adapter of a folder, for generation and evaluation.
std::shared_ptr<PeftModel> load_adapter(std::shared_ptr<CausalLM> base,
                                        const std::filesystem::path& adapter,
                                        const std::string& model,
                                        const Console& console);

}  // namespace lorapp::program
