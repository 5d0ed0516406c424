// RopeScaling: how a model's rotary frequencies are changed for texts longer than those it was
// first trained on. The fields have the names of config.json's rope_scaling (transformers 4) and
// rope_parameters (5).
#pragma once

#include <cstdint>
#include <optional>

namespace lorapp {

/// The rope_type of a config.json; `none` is the one called "default" there.
enum class RopeType { none, linear, dynamic, llama3, yarn };

/// The rope_type as config.json has it.
constexpr const char* rope_type_name(RopeType type) {
  switch (type) {
    case RopeType::none:
      return "default";
    case RopeType::linear:
      return "linear";
    case RopeType::dynamic:
      return "dynamic";
    case RopeType::llama3:
      return "llama3";
    case RopeType::yarn:
      return "yarn";
  }
  return "";
}

/// A rule and its numbers; rope_frequencies() says what each rule computes.
struct RopeScaling {
  RopeType type = RopeType::none;
  /// How many times longer texts may become; every rule but `none` reads it.
  double factor = 1.0;
  /// llama3, yarn: the length of the first training; nothing: max_position_embeddings.
  std::optional<std::int64_t> original_max_position_embeddings = {};
  /// llama3: frequencies that turn less than low_freq_factor times in the original length are
  /// divided by `factor`, those that turn more than high_freq_factor times are left alone.
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  /// yarn: what cosines and sines are multiplied by; nothing: follows from factor, mscale and
  /// mscale_all_dim.
  std::optional<double> attention_factor = {};
  std::optional<double> mscale = {};
  std::optional<double> mscale_all_dim = {};
  /// yarn: the turns in the original length above which a frequency is left alone, and below which
  /// it is divided by `factor`.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  /// yarn: whether the bounds between the two are rounded to whole dimensions.
  bool truncate = true;
};

}  // namespace lorapp
