// LoraConfig: which layers get a low-rank adapter and what it looks like.
// Fields carry PEFT's names, which are the keys of adapter_config.json.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace lorapp {

/// How a new adapter starts; B is zero except with `random`.
enum class LoraInit {
  kaiming,   ///< PEFT's true: A uniform in ±1/√in (Kaiming with a = √5)
  gaussian,  ///< "gaussian": A normal with standard deviation 1/r
  random,    ///< PEFT's false: A uniform in ±1/√in, B in ±1/√r; not a no-op, meant for tests
};

/// The configuration of LoRA (Hu et al. 2021, arXiv:2106.09685).
///
/// Defaults are the recipe's: r 16, alpha 32, dropout 0.05 on q_proj and v_proj. A key that a file
/// leaves out means PEFT's default instead (r 8, alpha 8, dropout 0, targets by architecture).
struct LORAPP_API LoraConfig {
  std::int64_t r = 16;
  double lora_alpha = 32;
  /// Names of layers: a whole path, or the end of one behind a dot. The one element "all-linear"
  /// stands for every Linear but the output embedding. Empty: see target_modules_regex.
  std::vector<std::string> target_modules = {"q_proj", "v_proj"};
  double lora_dropout = 0.05;
  std::string bias = "none";  ///< biases trained along: "none", "all" or "lora_only"
  std::string task_type = "CAUSAL_LM";
  bool use_rslora = false;  ///< scale alpha/√r instead of alpha/r (arXiv:2312.03732)
  LoraInit init_lora_weights = LoraInit::kaiming;
  /// Other ranks and alphas by layer. A key is a regular expression for the end of a path; where
  /// several match, the first in sorted order counts, as in a file that PEFT wrote.
  std::map<std::string, std::int64_t> rank_pattern = {};
  std::map<std::string, double> alpha_pattern = {};
  /// A regular expression for whole paths, in place of target_modules (which must then be empty);
  /// on disk both are the key target_modules. Syntax: see ModulePattern.
  std::optional<std::string> target_modules_regex = {};
  /// Layers that are left out, by the rules of the targets.
  std::vector<std::string> exclude_modules = {};
  std::optional<std::string> exclude_modules_regex = {};
  /// Only these layer numbers (for targets by the end of a path); empty: all. The number is the
  /// first numbered part of a path, or the one behind a name in layers_pattern.
  std::vector<std::int64_t> layers_to_transform = {};
  std::vector<std::string> layers_pattern = {};
  /// Modules that are trained whole beside the adapter and saved with it, e.g. "lm_head",
  /// "embed_tokens", "norm". As in PEFT a name means every module whose path ends with it, even
  /// within a part: "norm" is also input_layernorm.
  std::vector<std::string> modules_to_save = {};
  bool lora_bias = false;  ///< B has a bias, which is trained too
  /// Tokens whose rows of an embedding are trained, by the end of its path; "" is the embedding of
  /// the input, which a file writes as a list alone. A tied head reads the same rows.
  std::map<std::string, std::vector<std::int64_t>> trainable_token_indices = {};
  std::string base_model_name_or_path = {};  ///< empty: null on disk
  bool inference_mode = false;               ///< saved adapters always say true, as PEFT's do
  bool fan_in_fan_out = false;               ///< must be false: weights are [out, in]
  /// The keys of a file that lorapp does not know, each with its JSON text; written back unchanged.
  std::map<std::string, std::string> unknown_keys = {};

  /// Throws one Error that lists everything that is wrong.
  void validate() const;

  /// The rank and alpha of the layer at `path`, patterns considered.
  std::int64_t rank_of(const std::string& path) const;
  double alpha_of(const std::string& path) const;

  /// What B·A is multiplied by in the layer at `path`.
  double scaling_of(const std::string& path) const {
    const auto rank = static_cast<double>(rank_of(path));
    return alpha_of(path) / (use_rslora ? std::sqrt(rank) : rank);
  }

  /// Reads adapter_config.json. A missing key means PEFT's default; a key that changes the result
  /// and is not supported (use_dora, target_parameters, …) is an Error where it is set.
  static LoraConfig from_file(const std::filesystem::path& path);

  /// Writes adapter_config.json: sorted keys, sorted targets, inference_mode true.
  void save(const std::filesystem::path& path) const;

  friend bool operator==(const LoraConfig&, const LoraConfig&) = default;
};

}  // namespace lorapp
