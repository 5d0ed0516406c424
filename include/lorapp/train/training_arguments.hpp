// TrainingArguments: everything about a training run but the model and the data.
// Fields carry transformers' names, which are also the keys of training_args.json.
#pragma once

#include <lorapp/export.hpp>
#include <lorapp/nn/checkpointing_mode.hpp>
#include <lorapp/train/schedule.hpp>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace lorapp {

/// Defaults are the recipe's where it names one, else transformers'.
///
/// logging_steps, save_steps, eval_steps and warmup_steps may be a fraction below 1: that share of
/// all steps, rounded up.
struct LORAPP_API TrainingArguments {
  std::string output_dir = "trainer_output";
  std::int64_t per_device_train_batch_size = 4;
  std::int64_t gradient_accumulation_steps = 4;
  double learning_rate = 2e-4;
  double num_train_epochs = 3;
  SchedulerType lr_scheduler_type = SchedulerType::linear;
  double max_grad_norm = 1.0;  ///< 0: gradients are not clipped
  double logging_steps = 10;
  double save_steps = 500;
  std::int64_t save_total_limit = 2;  ///< checkpoints kept, the newest; 0: all
  double warmup_steps = 0;
  double weight_decay = 0;
  std::int64_t max_steps = -1;  ///< optimizer steps; above 0 it rules over num_train_epochs
  std::uint64_t seed = 42;      ///< of the data order and dropout
  bool shuffle = true;          ///< each epoch in the order torch.randperm(seed + epoch)
  bool gradient_checkpointing = false;
  /// What gradient_checkpointing turns on: selective or full.
  CheckpointingMode gradient_checkpointing_mode = CheckpointingMode::full;
  bool overwrite_output_dir = false;
  bool logging_first_step = false;
  std::string save_strategy = "steps";  ///< "steps" (and at the end), "epoch" or "no"
  std::string eval_strategy = "no";     ///< "steps" (and at the end), "epoch" or "no"
  double eval_steps = 500;
  std::int64_t per_device_eval_batch_size = 8;
  /// "adamw_torch" (or "adamw_torch_fused", the same here), or "adamw_8bit" (or "adamw_bnb_8bit"):
  /// with moments in 8 bits, as bitsandbytes keeps them.
  std::string optim = "adamw_torch";
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  SchedulerOptions lr_scheduler_kwargs = {};
  std::string logging_strategy = "steps";       ///< "steps", "epoch" or "no"
  std::optional<std::uint64_t> data_seed = {};  ///< of the data order instead of `seed`
  /// Checkpoints also hold optimizer.pt and scheduler.pt, with which transformers' Trainer resumes.
  bool torch_checkpoints = false;

  /// Throws one Error that lists every value that is wrong.
  void validate() const;

  /// Throws Error where output_dir cannot be written, or holds anything and overwrite_output_dir is
  /// not set. Trainer::train calls it; a program may earlier, before it loads a model.
  void check_output_dir() const;

  /// Reads and writes training_args.json (sorted keys). A key that is not known is an Error.
  static TrainingArguments from_file(const std::filesystem::path& path);
  void save(const std::filesystem::path& path) const;

  CheckpointingMode checkpointing_mode() const {
    return gradient_checkpointing ? gradient_checkpointing_mode : CheckpointingMode::none;
  }

  /// Of one of AdamW's moments; 0 where there is no such optim.
  int optim_state_bits() const {
    if (optim == "adamw_torch" || optim == "adamw_torch_fused") return 32;
    return optim == "adamw_8bit" || optim == "adamw_bnb_8bit" ? 8 : 0;
  }

  friend bool operator==(const TrainingArguments&, const TrainingArguments&) = default;
};

/// A number of steps as it is, or a fraction below 1 of all of them, rounded up.
inline std::int64_t resolve_steps(double steps, std::int64_t max_steps) {
  if (steps >= 1) return static_cast<std::int64_t>(steps);
  return static_cast<std::int64_t>(std::ceil(steps * static_cast<double>(max_steps)));
}

/// Optimizer steps of a whole run whose epochs have `windows` of them.
inline std::int64_t max_steps_of(const TrainingArguments& args, std::int64_t windows) {
  if (args.max_steps > 0) return args.max_steps;
  return static_cast<std::int64_t>(std::ceil(args.num_train_epochs * static_cast<double>(windows)));
}

/// The learning rates of a run of `max_steps`.
inline Schedule schedule_of(const TrainingArguments& args, std::int64_t max_steps) {
  return {.type = args.lr_scheduler_type,
          .learning_rate = args.learning_rate,
          .warmup_steps = resolve_steps(args.warmup_steps, max_steps),
          .max_steps = max_steps,
          .options = args.lr_scheduler_kwargs};
}

}  // namespace lorapp
