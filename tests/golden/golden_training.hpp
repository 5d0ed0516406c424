// The run of golden/training.json: its examples and arguments.
#pragma once

#include <lorapp/data/example.hpp>
#include <lorapp/train/training_arguments.hpp>

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace lorapp::test {

inline std::vector<Example> training_examples(const nlohmann::json& golden) {
  std::vector<Example> examples;
  for (const auto& example : golden.at("examples")) {
    examples.push_back({example.at("input_ids"), example.at("labels")});
  }
  return examples;
}

/// Every step is logged, nothing is saved.
inline TrainingArguments training_arguments(const nlohmann::json& golden,
                                            const std::string& output) {
  const auto& settings = golden.at("settings");
  TrainingArguments args;
  args.output_dir = output;
  args.per_device_train_batch_size = settings.at("per_device_train_batch_size");
  args.gradient_accumulation_steps = settings.at("gradient_accumulation_steps");
  args.learning_rate = settings.at("learning_rate");
  args.max_steps = settings.at("max_steps");
  args.warmup_steps = settings.at("warmup_steps");
  args.weight_decay = settings.at("weight_decay");
  args.max_grad_norm = settings.at("max_grad_norm");
  args.seed = settings.at("seed");
  args.logging_steps = 1;
  args.save_strategy = "no";
  return args;
}

}  // namespace lorapp::test
