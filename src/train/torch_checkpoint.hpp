// Checkpoints of transformers' Trainer: the adapter's files, trainer_state.json, optimizer.pt and
// scheduler.pt. training_args.bin and rng_state.pth are pickles of Python objects and are not read.
#pragma once

#include <lorapp/nn/causal_lm.hpp>
#include <lorapp/train/adamw.hpp>
#include <lorapp/train/callbacks.hpp>
#include <lorapp/train/schedule.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <cstdint>
#include <filesystem>

namespace lorapp::detail {

inline constexpr const char* kTorchOptimizerName = "optimizer.pt";
inline constexpr const char* kTorchSchedulerName = "scheduler.pt";

/// Reads the adapter (or, of a plain model, all weights) of a checkpoint.
void load_trained_weights(CausalLM& model, const std::filesystem::path& dir);

/// Reads such a checkpoint into the model and the optimizer. One Error lists what is wrong with any
/// of its files, and what was different in its run.
TrainerState load_torch_checkpoint(const std::filesystem::path& dir,
                                   CausalLM& model,
                                   AdamW& optimizer,
                                   const TrainingArguments& args,
                                   std::int64_t num_examples);

/// Writes optimizer.pt and scheduler.pt after `step` steps.
void save_torch_state(const std::filesystem::path& dir,
                      const AdamW& optimizer,
                      const Schedule& schedule,
                      std::int64_t step);

}  // namespace lorapp::detail
