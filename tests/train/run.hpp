// What the trainer's tests share: runs on tiny models, and their parameters afterwards.
#pragma once

#include "support/error_of.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_model.hpp"

#include <lorapp/error.hpp>
#include <lorapp/peft/peft_model.hpp>
#include <lorapp/train/trainer.hpp>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace lorapp::test {

/// A PeftModel with dropout, the same every time.
inline PeftModel tiny_peft(double dropout = 0.3) {
  return PeftModel(tiny_model(), LoraConfig{.r = 4, .lora_alpha = 8, .lora_dropout = dropout});
}

/// 22 examples make 8 micro-batches of 3 and 3 windows of 3, 3 and 2.
inline TrainingArguments tiny_args(const std::filesystem::path& output_dir) {
  TrainingArguments args;
  args.output_dir = output_dir.string();
  args.per_device_train_batch_size = 3;
  args.gradient_accumulation_steps = 3;
  args.learning_rate = 5e-3;
  args.num_train_epochs = 3;
  args.logging_steps = 2;
  args.warmup_steps = 2;
  args.weight_decay = 0.01;
  args.lr_scheduler_type = SchedulerType::cosine;
  return args;
}

inline std::vector<torch::Tensor> values_of(const CausalLM& model) {
  std::vector<torch::Tensor> values;
  for (const auto& parameter : model.parameters()) values.push_back(parameter.detach().clone());
  return values;
}

inline bool same_bits(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!a[i].equal(b[i])) return false;
  }
  return true;
}

/// Ends a run after a step, or does something else then.
class AtStep : public TrainerCallback {
 public:
  AtStep(std::int64_t step, std::function<void(TrainerControl&)> action)
      : step_(step), action_(std::move(action)) {}
  void on_step_end(const TrainingArguments&,
                   const TrainerState& state,
                   TrainerControl& control) override {
    if (state.global_step == step_) action_(control);
  }

 private:
  std::int64_t step_;
  std::function<void(TrainerControl&)> action_;
};

inline std::shared_ptr<AtStep> stop_after(std::int64_t step) {
  return std::make_shared<AtStep>(
      step, [](TrainerControl& control) { control.should_training_stop = true; });
}

}  // namespace lorapp::test
