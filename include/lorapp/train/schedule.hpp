// Learning-rate schedules: pure functions of the step.
// A schedule is a factor of learning_rate; step 0 is the first optimizer step.
#pragma once

#include <lorapp/error.hpp>
#include <lorapp/export.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp {

/// transformers' lr_scheduler_type, by the same names.
enum class SchedulerType {
  linear,
  cosine,
  cosine_with_restarts,
  polynomial,
  constant,
  constant_with_warmup,
  inverse_sqrt,
};

/// "linear", "cosine", …
LORAPP_API std::string_view scheduler_name(SchedulerType type);

/// The type of that name; an Error lists the names there are.
LORAPP_API SchedulerType parse_scheduler_type(std::string_view name);

/// transformers' lr_scheduler_kwargs.
struct SchedulerOptions {
  /// Waves of cosine (0.5: one fall) or restarts of cosine_with_restarts (1).
  std::optional<double> num_cycles = {};
  double lr_end = 1e-7;  ///< last learning rate of polynomial
  double power = 1;      ///< of polynomial
  /// Steps behind the warm-up after which inverse_sqrt has fallen to 1/√2; unset: as many as the
  /// warm-up has, or 10,000 without one.
  std::optional<std::int64_t> timescale = {};

  friend bool operator==(const SchedulerOptions&, const SchedulerOptions&) = default;
};

/// Reads options from JSON, as transformers' command line takes them: {"num_cycles": 2}. An Error
/// lists every key that is unknown or wrong.
LORAPP_API SchedulerOptions parse_scheduler_options(std::string_view json);

/// A schedule for `max_steps` optimizer steps, the first `warmup_steps` of which rise linearly from
/// 0 (constant ignores them).
struct Schedule {
  SchedulerType type = SchedulerType::linear;
  double learning_rate = 0;
  std::int64_t warmup_steps = 0;
  std::int64_t max_steps = 0;
  SchedulerOptions options;

  /// The factor of learning_rate at optimizer step `step`, from 0.
  double factor(std::int64_t step) const {
    if (type == SchedulerType::constant) return 1;
    const auto s = static_cast<double>(step);
    const auto warmup = static_cast<double>(warmup_steps);
    const auto total = static_cast<double>(max_steps);
    if (step < warmup_steps) return s / std::max(1.0, warmup);

    const double decay_steps = std::max(1.0, total - warmup);
    const double progress = (s - warmup) / decay_steps;
    using std::numbers::pi;
    switch (type) {
      case SchedulerType::linear:
        return std::max(0.0, (total - s) / decay_steps);
      case SchedulerType::cosine:
        return std::max(0.0,
                        0.5 * (1 + std::cos(pi * options.num_cycles.value_or(0.5) * 2 * progress)));
      case SchedulerType::cosine_with_restarts: {
        if (progress >= 1) return 0;
        const double phase = std::fmod(options.num_cycles.value_or(1) * progress, 1.0);
        return std::max(0.0, 0.5 * (1 + std::cos(pi * phase)));
      }
      case SchedulerType::polynomial: {
        if (step > max_steps) return options.lr_end / learning_rate;
        const double range = learning_rate - options.lr_end;
        return (range * std::pow(1 - progress, options.power) + options.lr_end) / learning_rate;
      }
      case SchedulerType::inverse_sqrt: {
        const auto scale = static_cast<double>(
            options.timescale.value_or(warmup_steps > 0 ? warmup_steps : kInverseSqrtTimescale));
        return 1 / std::sqrt((s + scale - warmup) / scale);
      }
      default:
        return 1;  // constant_with_warmup
    }
  }

  /// The learning rate of optimizer step `step`, from 0.
  double at(std::int64_t step) const { return learning_rate * factor(step); }

  static constexpr std::int64_t kInverseSqrtTimescale = 10'000;
};

}  // namespace lorapp
