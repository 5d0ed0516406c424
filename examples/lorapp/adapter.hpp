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
  std::optional<std::string> target_modules_regex{};
  std::vector<std::string> exclude_modules{};
  std::vector<std::int64_t> layers_to_transform{};
  std::vector<std::string> layers_pattern{};
  std::vector<std::string> rank_pattern{};   // PATTERN=R
  std::vector<std::string> alpha_pattern{};  // PATTERN=ALPHA
  std::vector<std::string> modules_to_save{};
  std::vector<std::string> trainable_token_indices{};  // ID,ID,… or MODULE=ID,ID,…
  std::optional<std::string> bias{};
  std::optional<std::string> init_lora_weights{};
  bool use_rslora = false;
  bool lora_bias = false;

  void add_to(CLI::App& app);

  /// The configuration of a new adapter.
  LoraConfig new_adapter() const;

  /// The configuration in an adapter folder, whose values rule: an option that contradicts one is
  /// an Error that lists them all. Dropout may differ.
  LoraConfig from_adapter(const std::filesystem::path& adapter) const;

  /// What from_adapter could not see in a file: Error where `model` was made from `adapter`,
  /// all-linear was asked for, and the adapter leaves layers out.
  void check_targets(PeftModel& model, const std::string& adapter) const;

 private:
  void add_layers_to(CLI::App& app);
  void apply_to(LoraConfig& config) const;
  bool asks_all_linear() const;

  CLI::Option* use_rslora_option_ = nullptr;
  CLI::Option* lora_bias_option_ = nullptr;
};

/// Says so where an adapter was made for another base: of another name that is not the same folder.
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
